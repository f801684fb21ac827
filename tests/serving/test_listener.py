"""Where the server listens, and who may call it by which name."""

import pytest

from flax_transformer.errors import UserError
from flax_transformer.serving.listener import allowed_hosts, is_loopback, listen


def test_addresses_that_cannot_be_had_are_named():
    with listen("127.0.0.1", 0) as taken:
        with pytest.raises(UserError, match=r"--port \d+ cannot be listened on: Address already"):
            listen("127.0.0.1", taken.getsockname()[1])
        assert is_loopback(taken) and "localhost" in allowed_hosts(taken, [])
    with pytest.raises(UserError, match=r"--host 192\.0\.2\.1 --port 0 cannot be listened on"):
        listen("192.0.2.1", 0)
    with listen("0.0.0.0", 0) as open_to_all:
        assert not is_loopback(open_to_all)
        assert allowed_hosts(open_to_all, []) is None
        assert allowed_hosts(open_to_all, ["example.org"]) == ["example.org"]
