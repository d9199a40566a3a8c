import pytest
from processes import trainings
from tiny import sentences


@pytest.fixture(scope="session")
def start(bert, senteval, tmp_path_factory):
    """Start `train` as a process of its own."""
    folder = tmp_path_factory.mktemp("processes")
    text = folder / "text.txt"
    text.write_text("\n".join(sentences(200)) + "\n", encoding="utf-8")
    with trainings(bert, text, senteval, folder / "cache") as run:
        yield run
