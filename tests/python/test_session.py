"""mod_drover.session over a store that is not httpd's: what is asked of it, and when."""
import contextlib
import io
import pickle
import threading
import time
import unittest

from fake import Store
from mod_drover import session
from mod_drover.session import Session


class Base(unittest.TestCase):
    def setUp(self):
        self.store = Store()

    def begin(self, cookie=None):
        calls = self.store.request(cookie)
        return Session(calls), calls

    def stored(self, **values):
        """The cookie of a session with these values."""
        s, calls = self.begin()
        s.update(values)
        self.finish(s, calls)
        return calls.set_cookie

    def finish(self, s, calls):
        calls.head(s)
        calls.end()

    def read(self, cookie):
        s, calls = self.begin(cookie)
        values = s.read_only().copy()
        calls.end()
        return values


class Lazy(Base):
    def test_untouched_asks_nothing(self):
        s, calls = self.begin(self.stored(a=1))
        self.assertIn("not open", repr(s))
        s.autosave, s.serializer = True, None
        self.finish(s, calls)
        self.assertEqual(calls.asked, [])
        self.assertIsNone(calls.set_cookie)

    def test_reading_saves_nothing(self):
        s, calls = self.begin(self.stored(a=1))
        self.assertEqual((s["a"], s.get("b"), "a" in s, len(s), list(s)), (1, None, True, 1, ["a"]))
        self.finish(s, calls)
        self.assertEqual(calls.asked, ["open"])

    def test_a_new_one_that_is_only_read_is_not_made(self):
        s, calls = self.begin("unknown")
        self.assertTrue(s.is_new)
        self.assertIsNone(s.id)
        self.assertIsNone(s.get("a"))
        self.finish(s, calls)
        self.assertEqual((self.store.records, calls.set_cookie), ({}, None))


    def test_two_threads_touch_it_first(self):
        cookie = self.stored(a=1)
        s, calls = self.begin(cookie)
        opened = calls.open

        def open_late(key, lock):
            # While this one waits for its answer, another thread is served and changes something.
            calls.open = opened
            thread = threading.Thread(target=s.update, kwargs={"b": 2})
            thread.start()
            thread.join()
            return opened(key, lock)

        calls.open = open_late
        self.assertEqual(s["a"], 1)
        self.finish(s, calls)
        self.assertEqual(self.read(cookie), {"a": 1, "b": 2})


class Saving(Base):
    def test_a_change_goes_out_with_the_head(self):
        cookie = self.stored(a=1)
        s, calls = self.begin(cookie)
        s["a"] += 1
        self.finish(s, calls)
        self.assertEqual(calls.asked, ["open", "save_with_head"])
        self.assertIsNone(calls.set_cookie, "it has its cookie")
        self.assertEqual(self.read(cookie), {"a": 2})

    def test_an_unknown_id_is_never_adopted(self):
        s, calls = self.begin("mine")
        s["a"] = 1
        self.finish(s, calls)
        self.assertEqual((calls.set_cookie, list(self.store.records)), ("id1", ["id1"]))

    def test_changes_in_place_are_noticed(self):
        for change in [
            lambda s: s["cart"].append(3),
            lambda s: s.get("cart").append(3),
            lambda s: next(iter(s.values())).append(3),
            lambda s: s.copy()["cart"].append(3),
            lambda s: s.setdefault("cart", []).append(3),
        ]:
            cookie = self.stored(cart=[1, 2])
            s, calls = self.begin(cookie)
            change(s)
            self.finish(s, calls)
            self.assertEqual(self.read(cookie), {"cart": [1, 2, 3]})

    def test_what_was_handed_out_and_not_changed_is_not_saved(self):
        s, calls = self.begin(self.stored(cart=[1, 2], name="ä"))
        self.assertEqual((s["cart"], s["name"]), ([1, 2], "ä"))
        self.finish(s, calls)
        self.assertEqual(calls.asked, ["open"])

    def test_a_value_changed_after_it_was_put_in(self):
        s, calls = self.begin()
        cart = s["cart"] = []
        s.save()
        cart.append(1)
        self.finish(s, calls)
        self.assertEqual(self.read(calls.set_cookie), {"cart": [1]})

    def test_every_way_of_changing(self):
        cookie = self.stored(a=1, b=2, c=3, d=4)
        s, calls = self.begin(cookie)
        del s["a"]
        self.assertEqual(s.pop("b"), 2)
        self.assertEqual(s.pop("missing", 7), 7)
        s.update(c=5)
        self.finish(s, calls)
        self.assertEqual(self.read(cookie), {"c": 5, "d": 4})
        s, calls = self.begin(cookie)
        s.clear()
        self.finish(s, calls)
        self.assertEqual(self.read(cookie), {})
        with self.assertRaises(KeyError):
            del self.begin(cookie)[0]["a"]
        with self.assertRaises(TypeError):
            self.begin(cookie)[0][1] = 2

    def test_without_autosave(self):
        cookie = self.stored(a=1)
        s, calls = self.begin(cookie)
        s.autosave = False
        s["a"] = 2
        self.finish(s, calls)
        self.assertEqual(self.read(cookie), {"a": 1})
        s, calls = self.begin(cookie)
        s.autosave = False
        s["a"] = 2
        s.save()
        s["a"] = 3
        self.finish(s, calls)
        self.assertEqual(self.read(cookie), {"a": 2})

    def test_streaming(self):
        s, calls = self.begin()
        s["a"] = 1
        s._before_head(False)
        self.assertEqual(calls.asked, ["open", "save"], "its id is needed")
        s["a"] = 2
        s._before_end()
        s._before_end()
        self.assertEqual(calls.asked, ["open", "save", "save"])
        calls.end()
        self.assertEqual(self.read(calls.set_cookie), {"a": 2})

    def test_timeout(self):
        cookie = self.stored(a=1)
        s, calls = self.begin(cookie)
        self.assertEqual(s.timeout, 1800)
        s.timeout = 1800
        s.timeout = 60
        self.finish(s, calls)
        self.assertEqual(self.store.records[cookie][2], 60)
        for bad in (0, -1, 2**32):
            with self.assertRaises(ValueError):
                s.timeout = bad

    def test_times(self):
        before = time.time() - 0.001
        cookie = self.stored(a=1)
        s, _ = self.begin(cookie)
        self.assertTrue(before <= s.created <= time.time())
        self.assertTrue(before <= s.last_accessed <= time.time())
        created = self.store.records[cookie][0]
        s["a"] = 2
        s.save()
        self.assertEqual(self.store.records[cookie][0], created)


class Errors(Base):
    def test_the_key_of_what_cannot_be_stored(self):
        s, calls = self.begin()
        s["good"], s["bad"] = 1, object()
        with self.assertRaisesRegex(session.NotSerializable, "'bad'") as caught:
            calls.head(s)
        self.assertEqual(caught.exception.key, "bad")
        self.assertIn("TypeError: Object of type object is not JSON serializable", str(caught.exception))
        self.assertIsNone(caught.exception.__cause__ or caught.exception.__context__, "one traceback says it all")
        self.assertEqual(self.store.records, {})

    def test_too_large(self):
        self.store.max_size = 100
        s, calls = self.begin()
        s["a"] = "x" * 100
        with self.assertRaisesRegex(session.TooLarge, "DroverSessionMaxSize"):
            calls.head(s)

    def test_what_the_store_says_comes_through(self):
        self.store.down = session.StoreUnavailable("down")
        s, _ = self.begin("a")
        for _ in range(2):
            with self.assertRaises(session.StoreUnavailable):
                s.get("a")
        self.store.down = None
        self.assertIsNone(s.get("a"), "it is tried again")

    def test_data_of_another_serializer(self):
        for stored in (b"{", b"[]", b"\xff"):
            cookie = self.stored(a=1)
            self.store.records[cookie] = self.store.records[cookie][:3] + (stored,)
            s, calls = self.begin(cookie)
            with contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertTrue(s.is_new)
            self.assertIn("starting a new one", said.getvalue())
            s["a"] = 2
            self.finish(s, calls)
            self.assertNotEqual(calls.set_cookie, cookie)
            self.assertEqual(self.read(calls.set_cookie), {"a": 2})

    def test_the_hierarchy(self):
        for name in session.__all__:
            found = getattr(session, name)
            if isinstance(found, type) and issubclass(found, Exception):
                self.assertTrue(issubclass(found, session.SessionError), name)
            self.assertTrue(found.__doc__, name)


class Locks(Base):
    def test_held_until_the_end(self):
        cookie = self.stored(a=1)
        one, first = self.begin(cookie)
        one["a"]
        two, second = self.begin(cookie)
        with self.assertRaises(session.LockTimeout):
            two["a"]
        first.end()
        self.assertEqual(two["a"], 1)
        second.end()

    def test_read_only_neither_waits_nor_locks(self):
        cookie = self.stored(a=1)
        one, first = self.begin(cookie)
        one["a"] = 5
        two, second = self.begin(cookie)
        self.assertEqual(two.read_only()["a"], 1)
        for change in (lambda: two.update(a=2), two.save, two.invalidate, two.regenerate, two.clear):
            with self.assertRaises(session.SessionError):
                change()
        self.finish(one, first)
        two.lock()
        self.assertEqual(two["a"], 5, "it is read again")
        two["a"] = 6
        self.finish(two, second)
        self.assertEqual(self.read(cookie), {"a": 6})

    def test_unlock_saves_what_was_changed(self):
        cookie = self.stored(a=1)
        one, first = self.begin(cookie)
        one["a"] = 2
        one.unlock()
        two, second = self.begin(cookie)
        self.assertEqual(two["a"], 2)
        self.finish(two, second)
        self.finish(one, first)
        self.assertEqual(first.asked, ["open", "save"])
        one, first = self.begin(cookie)
        one["a"]
        one.unlock()
        self.assertEqual(first.asked, ["open", "unlock"])
        one.unlock()
        self.assertEqual(first.asked, ["open", "unlock"])

    def test_without_its_lock_a_removed_session_stays_removed(self):
        cookie = self.stored(a=1)
        one, first = self.begin(cookie)
        one["a"]
        one.unlock()
        two, second = self.begin(cookie)
        two.invalidate()
        second.end()
        one["a"] = 2
        with self.assertRaises(session.SessionMissing):
            one.save()
        self.assertEqual(self.store.records, {})


class Identity(Base):
    def test_regenerate_keeps_the_data(self):
        cookie = self.stored(user=7)
        s, calls = self.begin(cookie)
        s.regenerate()
        self.assertNotEqual(s.id, cookie)
        self.finish(s, calls)
        self.assertEqual((calls.set_cookie, list(self.store.records)), (s.id, [s.id]))
        self.assertEqual(self.read(s.id), {"user": 7})
        self.assertEqual(calls.asked, ["open", "save"])

    def test_regenerate_of_a_new_one(self):
        s, calls = self.begin()
        s.regenerate()
        s["user"] = 7
        self.finish(s, calls)
        self.assertEqual(list(self.store.records), [calls.set_cookie])

    def test_invalidate(self):
        cookie = self.stored(user=7)
        s, calls = self.begin(cookie)
        s.invalidate()
        self.assertTrue(s.is_new)
        self.assertEqual(dict(s), {})
        self.finish(s, calls)
        self.assertEqual((self.store.records, calls.set_cookie), ({}, ""))
        cookie = self.stored(user=7)
        s, calls = self.begin(cookie)
        s.delete()
        s["user"] = 8
        self.finish(s, calls)
        self.assertNotEqual(calls.set_cookie, cookie)
        self.assertEqual(self.read(calls.set_cookie), {"user": 8})


class Serializers(Base):
    def round_trip(self, values):
        s, calls = self.begin()
        s.update(values)
        self.finish(s, calls)
        return self.read(calls.set_cookie)

    def test_json(self):
        values = {"text": "ä\u2028\ud800", "number": 1.5, "list": [1, None, True], "dict": {"a": {}}}
        self.assertEqual(self.round_trip(values), values)

    def test_pickle(self):
        self.store.serializer = 1
        values = {"set": {1, 2}, "bytes": b"\xff", "tuple": (1,)}
        self.assertEqual(self.round_trip(values), values)

    def test_msgpack(self):
        self.store.serializer = 2
        values = {"bytes": b"\xff", "map": {1: "a"}}
        try:
            import msgpack  # noqa: F401
        except ImportError:
            with self.assertRaisesRegex(session.SessionError, "msgpack"):
                self.round_trip(values)
        else:
            self.assertEqual(self.round_trip(values), values)

    def test_the_applications_own(self):
        s, calls = self.begin()
        s.serializer = pickle
        s["a"] = {1}
        self.finish(s, calls)
        again, calls = self.begin(calls.set_cookie)
        again.serializer = pickle
        self.assertEqual(again["a"], {1})
        with self.assertRaises(session.SessionError):
            again.serializer = None


if __name__ == "__main__":
    unittest.main()
