"""Tests that need another library are found by CI, which installs it last."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ("torch", "transformers", "ctranslate2")


def test_what_needs_a_peer_is_marked_so_that_ci_runs_it_with_one():
    """A module's `importorskip` skips all of its tests; in a test of its own, the mark skips."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text("utf-8")
        skips = any(f'importorskip("{peer}"' in text for peer in PEERS)
        marked = "pytest.mark.peer(" in text
        assert marked or not skips, f"{path}: mark what needs a peer, @pytest.mark.peer(...)"
