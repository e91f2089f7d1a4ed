"""mod_drover.cache: one build at a time, nobody waits for what is merely old, and a bound that holds."""
import contextlib
import io
import os
import signal
import sys
import threading
import unittest
from unittest import mock

import mod_drover.cache
from mod_drover.cache import Cache

LIMIT = 60  # seconds, for what must happen at once


class Clock:
    """In the place of time.monotonic."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Base(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        patch = mock.patch("mod_drover.cache.time.monotonic", self.clock)
        patch.start()
        self.addCleanup(patch.stop)
        self.cache = Cache()

    def never(self):
        self.fail("it was built again")

    def threads(self):
        """Waits for what is built in the background."""
        for thread in threading.enumerate():
            if thread.name == "mod_drover.cache":
                thread.join(LIMIT)


class Building(Base):
    def test_the_very_object(self):
        made = object()
        self.assertIs(self.cache.get_or_build("a", lambda: made), made)
        self.assertIs(self.cache.get_or_build("a", self.never), made)
        figures = self.cache.stats()
        self.assertEqual((figures["hits"], figures["misses"], figures["builds"], figures["entries"]), (1, 1, 1, 1))

    def test_none_is_a_value(self):
        self.cache.get_or_build("a", lambda: None)
        self.assertIsNone(self.cache.get_or_build("a", self.never))

    def test_one_build_at_a_time(self):
        inside, go = threading.Event(), threading.Event()
        built, got = [], []

        def build():
            built.append(1)
            inside.set()
            self.assertTrue(go.wait(LIMIT))
            return object()

        threads = [threading.Thread(target=lambda: got.append(self.cache.get_or_build("a", build))) for _ in range(8)]
        threads[0].start()
        self.assertTrue(inside.wait(LIMIT))
        for thread in threads[1:]:
            thread.start()
        self.assertEqual(self.cache.get_or_build("other", lambda: 1), 1, "another key does not wait")
        go.set()
        for thread in threads:
            thread.join(LIMIT)
        self.assertEqual((len(built), len(got), len(set(map(id, got)))), (1, 8, 1))

    def test_a_build_that_fails_is_not_kept(self):
        def fail():
            raise ValueError("no")

        for _ in range(2):
            with self.assertRaises(ValueError):
                self.cache.get_or_build("a", fail)
        self.assertEqual(self.cache.get_or_build("a", lambda: 1), 1)
        self.assertEqual(self.cache.stats()["failures"], 2)

    def test_those_who_wait_for_a_build_that_fails(self):
        inside, go, got = threading.Event(), threading.Event(), []

        def fail():
            inside.set()
            self.assertTrue(go.wait(LIMIT))
            raise ValueError("no")

        def get():
            try:
                self.cache.get_or_build("a", fail)
            except ValueError as e:
                got.append(str(e))

        one, two = threading.Thread(target=get), threading.Thread(target=get)
        one.start()
        self.assertTrue(inside.wait(LIMIT))
        two.start()
        go.set()
        one.join(LIMIT)
        two.join(LIMIT)
        self.assertEqual(got, ["no", "no"])

    def test_a_build_that_wants_itself(self):
        with self.assertRaisesRegex(RuntimeError, "'a'"):
            self.cache.get_or_build("a", lambda: self.cache.get_or_build("a", self.never))
        self.assertEqual(self.cache.get_or_build("a", lambda: self.cache.get_or_build("b", lambda: 2)), 2)


class Age(Base):
    def test_the_old_is_given_while_the_new_is_made(self):
        inside, go = threading.Event(), threading.Event()

        def slow():
            inside.set()
            self.assertTrue(go.wait(LIMIT))
            return "new"

        self.cache.get_or_build("a", lambda: "old", ttl=10)
        self.clock.now += 9
        self.assertEqual(self.cache.get_or_build("a", self.never, ttl=10), "old")
        self.clock.now += 1
        self.assertEqual(self.cache.get_or_build("a", slow, ttl=10), "old")
        self.assertTrue(inside.wait(LIMIT))
        self.assertEqual(self.cache.get_or_build("a", self.never, ttl=10), "old", "one build at a time")
        go.set()
        self.threads()
        self.assertEqual(self.cache.get_or_build("a", self.never, ttl=10), "new")
        self.assertEqual(self.cache.stats()["stale"], 2)

    def test_the_old_stays_when_the_new_fails(self):
        self.cache.get_or_build("a", lambda: "old", ttl=10)
        self.clock.now += 11
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(self.cache.get_or_build("a", lambda: 1 / 0, ttl=10), "old")
            self.threads()
        self.assertIn("ZeroDivisionError", said.getvalue())
        self.assertEqual(self.cache.get_or_build("a", self.never, ttl=10), "old", "not tried at once again")
        self.clock.now += mod_drover.cache.RETRY
        self.cache.get_or_build("a", lambda: "new", ttl=10)
        self.threads()
        self.assertEqual(self.cache.get_or_build("a", self.never, ttl=10), "new")

    def test_without_ttl_it_stays(self):
        self.cache.get_or_build("a", lambda: 1)
        self.clock.now += 1e9
        self.assertEqual(self.cache.get_or_build("a", self.never), 1)


class Bounds(Base):
    def test_the_least_recently_used_goes(self):
        self.cache.set_limit(2)
        for key in "ab":
            self.cache.get_or_build(key, lambda: key)
        self.cache.get_or_build("a", self.never)
        self.cache.get_or_build("c", lambda: "c")
        self.cache.get_or_build("a", self.never)
        self.assertEqual(self.cache.get_or_build("b", lambda: "again"), "again")
        self.assertEqual(self.cache.stats()["evictions"], 2)

    def test_sizes(self):
        self.cache.set_limit(100)
        self.cache.get_or_build("a", lambda: "x" * 60, size=len)
        self.cache.get_or_build("b", lambda: "x" * 30, size=30)
        self.assertEqual(self.cache.stats()["size"], 90)
        self.cache.get_or_build("c", lambda: "x" * 20, size=len)
        self.assertEqual((self.cache.stats()["size"], self.cache.stats()["entries"]), (50, 2))
        self.assertEqual(self.cache.get_or_build("large", lambda: "x", size=101), "x")
        self.assertEqual(self.cache.stats()["entries"], 2, "what does not fit drives nothing out")
        self.cache.set_limit(0)
        self.assertEqual(self.cache.stats()["entries"], 0)

    def test_drop_and_clear(self):
        self.cache.get_or_build("a", lambda: 1)
        self.assertTrue(self.cache.drop("a"))
        self.assertFalse(self.cache.drop("a"))
        self.cache.get_or_build("a", lambda: 2)
        self.cache.clear()
        self.assertEqual(self.cache.get_or_build("a", lambda: 3), 3)
        self.assertEqual(self.cache.stats()["size"], 1)

    def test_what_is_dropped_while_it_is_built_is_not_kept(self):
        def build():
            self.cache.drop("a")
            return "outdated"

        self.assertEqual(self.cache.get_or_build("a", build), "outdated")
        self.assertEqual(self.cache.get_or_build("a", lambda: "now"), "now")


class Fork(Base):
    def test_a_child_has_the_entries_and_can_build(self):
        self.cache.get_or_build("a", lambda: 1)
        sys.stderr.flush()

        def build():
            child = os.fork()
            if child == 0:
                # In the child, a thread that builds is not there any more.
                right = self.cache.get_or_build("a", self.never) == 1 and self.cache.get_or_build("b", lambda: 2) == 2
                os._exit(0 if right else 1)
            return os.waitpid(child, 0)[1]

        self.assertEqual(self.cache.get_or_build("b", build), 0)

    def test_a_child_that_comes_out_of_a_build_waits_for_no_thread_of_its_parent(self):
        parent, held, done = os.getpid(), threading.Event(), threading.Event()
        self.cache.get_or_build("b", lambda: 2, size=3)
        children = []

        def hold(future):
            # As a thread that waits for the build, and one that is between two changes.
            with future._condition, self.cache._lock:
                self.cache._size = 100
                held.set()
                done.wait(LIMIT)
                self.cache._size = 3

        def build():
            thread = threading.Thread(target=hold, args=(self.cache._building["a"],))
            thread.start()
            held.wait(LIMIT)
            child = os.fork()
            if child == 0:
                signal.alarm(LIMIT)  # ends it if it waits
                return 1
            children.append(os.waitpid(child, 0)[1])
            done.set()
            thread.join(LIMIT)
            return 1

        built = self.cache.get_or_build("a", build)
        if os.getpid() != parent:
            figures = self.cache.stats()
            os._exit(0 if (built, figures["size"], figures["entries"]) == (1, 3, 1) else 1)
        self.assertEqual((built, children), (1, [0]))


class Module(unittest.TestCase):
    def test_the_shared_one(self):
        mod_drover.cache.clear()
        self.assertEqual(mod_drover.cache.get_or_build("a", lambda: 1, ttl=5, size=1), 1)
        self.assertEqual(mod_drover.cache.stats()["entries"], 1)
        self.assertTrue(mod_drover.cache.drop("a"))


if __name__ == "__main__":
    unittest.main()
