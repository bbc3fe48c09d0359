"""What can be known without a database."""

import unittest

from shop import store


class Orders(unittest.TestCase):
    def test_an_order_names_a_product(self):
        self.assertEqual(store.parse_order(b'{"product": 2}'), 2)

    def test_nonsense_is_refused(self):
        for body in (b"", b"[]", b"{}", b'{"product": 0}', b'{"product": "lamp"}'):
            with self.assertRaises(ValueError):
                store.parse_order(body)


if __name__ == "__main__":
    unittest.main()
