from marway.resolve.caches import LruCache


def test_forgets_the_least_recently_used() -> None:
    """A full cache forgets what was not used for longest."""
    cache: LruCache[str, int] = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (1, None, 3, 2)
