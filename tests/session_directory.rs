//! Which directories sessions may be kept in.
//!
//! Responsible for: httpd's parent, which is root, giving no directory away that serves something else. Called by: `main.rs`.
use crate::harness::Site;
use std::os::unix::fs::{MetadataExt, symlink};

event_test!(a_directory_that_serves_something_else_is_refused, |site| {
    let full = site.dir().join("full");
    std::fs::create_dir(&full).expect("directory");
    std::fs::write(full.join("index.html"), "").expect("file");
    symlink("full", site.dir().join("link")).expect("link");
    let identity = |path: &str| {
        let found = std::fs::metadata(path).expect("directory");
        (found.uid(), found.gid(), found.mode())
    };
    let full = full.to_str().expect("path").to_owned();
    let paths =
        [("/tmp", "that users share"), ("/etc", "of the system"), (&full, "it has other files in it"), ("@dir@/link", "not a directory")];
    let mut site = site;
    for (path, why) in paths {
        let path = site.fill(path);
        let before = identity(&path);
        site = site.config(&format!("DroverSession disk\nDroverSessionDirectory {path}"));
        site.refused(&[
            "DROVER0013: DroverSessionDirectory",
            &path,
            why,
            "Name an empty or a new DroverSessionDirectory",
            "(@dir@/httpd.conf:",
        ]);
        assert_eq!(identity(&path), before);
    }
});

mpm_test!(an_empty_directory_is_taken_and_known_again, |site| {
    std::fs::create_dir(site.dir().join("mine")).expect("directory");
    let site: Site = site.app("/", "sessions/plain.wsgi").config("DroverSession disk\nDroverSessionDirectory @dir@/mine");
    let mut httpd = site.start();
    let answer = httpd.get("/count");
    assert_eq!((answer.status, answer.text().as_str()), (200, "1"));
    let cookie = crate::sessions::cookie(&answer);
    httpd.restart();
    assert_eq!(crate::sessions::get(&httpd, "/count", &cookie).text(), "2");
    assert!(httpd.site.dir().join("mine/README.mod_drover").is_file());
});
