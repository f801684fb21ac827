import hashlib
import json
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from flax_transformer.config import Tfds
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.pairs import hash_contents
from flax_transformer.errors import UserError

ESCAPED = {
    "AT&amp;T, &quot;A&apos; &lt;b&gt;": "AT&T, \"A' <b>",
    "Größe &#252;ber &#xFC;&#x1F642;&#8217;": "Größe über ü🙂’",
    "&amp;amp; once": "&amp; once",
    "&amp;lt;": "&lt;",
    "AT&T R&D; &amp &AMP; &nbsp; &copy &; &#; &#x; &#12345678901;": (
        "AT&T R&D; &amp &AMP; &nbsp; &copy &; &#; &#x; &#12345678901;"
    ),
    "a line&#10;and&#13;&#x9;one&#1;more&#133;": "a line and  one more…",
    "no such&#0;&#xD800;": "no such\ufffd\ufffd",
}


class TinyPairs(tfds.core.GeneratorBasedBuilder):
    """A dataset in the shape of the library's own; to define the class is to register it."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012  the library expects a list
        tfds.core.BuilderConfig(name=name)
        for name in ("de-en", "broken", "no_test", "only_train", "sgml")
    ]
    SIZES = {"train": 1500, "validation": 3, "test": 2}  # noqa: RUF012

    def _info(self):
        languages = tfds.features.Translation(languages=("de", "en"))
        return tfds.core.DatasetInfo(builder=self, features=languages)

    def _split_generators(self, dl_manager):
        if self.builder_config.name == "broken":
            raise ConnectionError("no route to host")
        kept = {"no_test": 2, "only_train": 1}.get(self.builder_config.name, 3)
        return {name: self._generate_examples(name) for name in list(self.SIZES)[:kept]}

    def _generate_examples(self, split):
        if self.builder_config.name == "sgml":
            for i, text in enumerate(ESCAPED):
                yield i, {"de": text, "en": f"{split}: {text}"}
            return
        for i in range(self.SIZES[split]):
            yield i, {"de": f"Größe {split} {i}", "en": f"size\u2028{split} {i}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    open_corpus(Tfds(name="tiny_pairs/de-en", directory=str(directory)))
    return directory


def open_tiny(folder, name="tiny_pairs/de-en", **settings):
    return open_corpus(Tfds(name=name, directory=str(folder), **settings))


def test_pairs(folder):
    corpus = open_tiny(folder)
    assert corpus.test_splits == ("test",)
    train = corpus.split("train")
    expected = {(f"size\u2028train {i}", f"Größe train {i}") for i in range(1500)}
    assert len(train) == 1500
    assert set(train) == expected
    assert [train[i] for i in range(1500)] == list(train)
    assert train[-3:] == list(train)[-3:]
    with pytest.raises(IndexError):
        train[1500]
    assert {source for source, _ in corpus.split("test")} == {
        "size\u2028test 0",
        "size\u2028test 1",
    }
    assert corpus.describe() == (
        "TFDS tiny_pairs/de-en/1.0.0, en -> de: 1,500 training pairs, 3 validation, 2 test"
    )


def test_entities_of_sgml_are_characters_in_every_split(tmp_path):
    corpus = open_tiny(tmp_path, "tiny_pairs/sgml")
    for name in ("train", "validation", "test"):
        expected = {(f"{name}: {text}", text) for text in ESCAPED.values()}
        assert set(corpus.split(name)) == expected


def test_ids_of_text_with_entities_are_not_used_for_the_text_without(folder):
    """The fingerprint is not that of the files and the languages alone, as it was."""
    corpus = open_tiny(folder)
    for name in ("train", "validation", "test"):
        files = sorted(folder.glob(f"**/*{name}.array_record*"))
        digests = [hashlib.sha256(path.read_bytes()).digest() for path in files]
        assert digests
        assert corpus.fingerprint(name) != hash_contents([b"en", b"de", *digests])


def test_prepared_once(folder, capfd):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    open_tiny(folder).describe()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert capfd.readouterr().out == ""


def test_fingerprint(folder, tmp_path):
    corpus = open_tiny(folder)
    prints = [corpus.fingerprint(name) for name in ("train", "validation", "test")]
    assert len(set(prints)) == 3
    assert open_tiny(tmp_path).fingerprint("train") == prints[0]
    reverse = open_tiny(folder, source_language="de", target_language="en")
    assert reverse.split("test")[0] == corpus.split("test")[0][::-1]
    assert reverse.fingerprint("train") != prints[0]


def test_splits_that_a_dataset_lacks(tmp_path):
    assert open_tiny(tmp_path, "tiny_pairs/no_test").test_splits == ()
    with pytest.raises(UserError, match="only_train has no validation split, only train"):
        open_tiny(tmp_path, "tiny_pairs/only_train")


def test_mistakes(folder):
    with pytest.raises(UserError, match=r"data\.source_language is 'fr', .* only de, en"):
        open_tiny(folder, source_language="fr")
    with pytest.raises(UserError, match=r"data\.name is 'tiny_pairs/xx', .*BuilderConfig xx not"):
        open_tiny(folder, "tiny_pairs/xx")
    with pytest.raises(UserError, match=r"data\.name is 'no_such_data', .*not found"):
        open_tiny(folder, "no_such_data")


def test_failed_download_tells_how_to_prepare_by_hand(tmp_path):
    with pytest.raises(UserError, match=r"failed .*no route to host") as error:
        open_tiny(tmp_path, "tiny_pairs/broken")
    (command,) = [line for line in str(error.value).splitlines() if "python -c" in line]
    compile(command.split('"')[1], "command", "exec")
    assert "tfds.builder('tiny_pairs/broken', " in command and "array_record" in command


def test_other_file_format(tmp_path):
    open_tiny(tmp_path)
    (info,) = tmp_path.rglob("dataset_info.json")
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match=r"in the format tfrecord, .* data\.directory"):
        open_tiny(tmp_path)


def test_works_without_tensorflow(tmp_path):
    script = f"""
import sys

class WithoutTensorFlow:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "tensorflow":
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(WithoutTensorFlow, sys.meta_path)
sys.path[:0] = ["tests/data", "tests"]
import test_tfds
corpus = test_tfds.open_tiny({str(tmp_path)!r})
assert len(list(corpus.split("train"))) == 1500
import tensorflow_datasets.translate
wmt = tensorflow_datasets.builder("wmt14_translate/de-en", data_dir={str(tmp_path)!r})
assert set(wmt.info.features) == {{"de", "en"}}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_library_is_imported_only_when_used():
    script = (
        "import sys, flax_transformer.data.corpus;"
        "assert not {'tensorflow_datasets', 'jax'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
