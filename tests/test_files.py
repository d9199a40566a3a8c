"""Files written whole or not at all: what else of them is kept."""

import os

from simcse_bench import files


def test_a_file_has_the_mode_that_the_users_mask_leaves_and_keeps_its_own(tmp_path):
    before = os.umask(0o027)
    files._mask.cache_clear()
    try:
        files.write_text(tmp_path / "new.json", "1")
    finally:
        os.umask(before)
        files._mask.cache_clear()
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o640
    (tmp_path / "new.json").chmod(0o600)
    files.write_text(tmp_path / "new.json", "2")
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new.json").read_text() == "2"
