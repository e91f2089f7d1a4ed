#!/usr/bin/env python3
"""Checks what must be true of the dependencies. Called by check.sh.

Responsible for: the table in ARCHITECTURE.md names the crates that the workspace depends on and no
others; every crate builds with the `rust-version` of the workspace; one version of each crate is
linked into the product. Licences and advisories: deny.toml.
"""
import json
import os
import re
import subprocess
import sys

PLATFORM = "x86_64-unknown-linux-gnu"


def version(text):
    return tuple(int(part) for part in text.split("."))


def table():
    """The crates in the first column of the table below `## Dependencies`."""
    with open("ARCHITECTURE.md", encoding="utf-8") as file:
        section = file.read().split("\n## Dependencies\n")[1].split("\n## ")[0]
    names = set()
    for row in re.findall(r"^\| *([^|]+?) *\|", section, re.MULTILINE)[2:]:
        names.update(re.sub(r"\([^)]*\)", "", row).replace(",", " ").split())
    return names


def main():
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    members = set(metadata["workspace_members"])
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    faults = []

    direct = {d["name"] for id in members for d in packages[id]["dependencies"] if d["source"]}
    faults += [f"ARCHITECTURE.md's table of dependencies lacks {name}" for name in sorted(direct - table())]
    faults += [f"ARCHITECTURE.md's table of dependencies names {name}, which is not used" for name in sorted(table() - direct)]

    (own,) = {packages[id]["rust_version"] for id in members}
    for id in nodes:
        needs = packages[id]["rust_version"]
        if needs and version(needs) > version(own):
            faults.append(f"{packages[id]['name']} {packages[id]['version']} needs Rust {needs}; rust-version is {own}")

    # `cargo metadata` also names optional dependencies that no feature turns on; `cargo tree` does not.
    command = [cargo, "tree", "--workspace", "--locked", "-d", "-e", "normal,no-proc-macro", "--depth", "0", "--target", PLATFORM]
    twice = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    faults += [f"linked in more than one version: {name}" for name in sorted(set(twice.split("\n")) - {""})]

    for fault in faults:
        print(f"check: {fault}")
    return bool(faults)


sys.exit(main())
