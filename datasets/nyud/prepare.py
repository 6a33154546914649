"""Check nyu_depth_v2_labeled.mat, stream it into its cache, and print what it holds.

Run: python datasets/nyud/prepare.py nyu_depth_v2_labeled.mat
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from densebnn.data.nyud.cache import CachedFrames, cache_folder, open_cache
from densebnn.data.nyud.genuine import GENUINE_MD5, md5_of
from densebnn.data.nyud.release import GENUINE
from densebnn.data.nyud.tables import FORTY, THIRTEEN, label_table
from densebnn.registry import UserError


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the .mat file")
    parser.add_argument("--cache", default="auto", help="folder of the cache (default: beside the file)")
    parser.add_argument("--md5", action="store_true", help="compare the file with the genuine release first")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if given.md5:
            check_md5(given.path)
        folder = cache_folder(given.path, given.cache)
        describe(open_cache(given.path, folder, check=lambda release: label_table(release.names, 40, file=given.path)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def check_md5(path: Path) -> None:
    """Raise `UserError` unless the file is the genuine release."""
    digest = md5_of(path)
    if digest != GENUINE_MD5:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes and MD5 {digest}; {GENUINE}")
    print(f"{path} is the genuine release")


def describe(source: CachedFrames) -> None:
    """Print frames, chunks, missing depth, classes and the place of the cache."""
    height, width = source.frame_size
    print(f"frames    {source.frames} of {height}x{width}, {len(set(source.scene_types))} types of room")
    for key, chunk in source.manifest["chunks"].items():
        print(f"chunks    {key}: {'contiguous' if chunk is None else 'x'.join(map(str, chunk))}")
    for key in ("depths", "rawDepths"):
        valid, invalid = (sum(source.manifest[name][key]) for name in ("depth_valid", "depth_invalid"))
        missing = 1 - valid / (source.frames * height * width)
        print(
            f"missing   {key}: {missing:.1%} of the pixels, {invalid} of them were no depth at all (NaN, negative, ...)"
        )
    forty = set(label_table(source.names, 40)[1:].tolist())
    thirteen = set(label_table(source.names, 13)[1:].tolist())
    print(f"classes   {len(source.names)} names in {len(forty)} of {len(FORTY)} and {len(thirteen)} of {len(THIRTEEN)}")
    size = sum(file.stat().st_size for file in source.folder.iterdir())
    print(f"cache     {source.folder} ({size / 1e9:.2f} GB)")


if __name__ == "__main__":
    sys.exit(main())
