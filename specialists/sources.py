"""A folder's Python, imported from the bytes that were checked and from nothing else.

Python's own way would read the files a second time, when somebody may have exchanged them, and would prefer a compiled
file in ``__pycache__`` that no card lists. Here modules are compiled from the sources at hand; what the card does not
list cannot be imported. This module knows nothing of specialists.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["install"]


def install(package: str, folder: Path, files: Collection[str], sources: Mapping[str, bytes]) -> None:
    """Let ``package`` be the Python of ``folder``; again with the same name does nothing.

    ``files``: every file that may be imported, by its path inside the folder. ``sources``: the bytes of those that end
    in ``.py``. Compiled extensions are loaded from the disk, as the system can do it in no other way.
    """
    if package in sys.modules:
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.folders[package] = _Folder(folder, frozenset(files), dict(sources))
    module = ModuleType(package)
    module.__path__ = [str(folder)]
    sys.modules[package] = module


class _Folder:
    def __init__(self, place: Path, files: frozenset[str], sources: dict[str, bytes]) -> None:
        self.place = place
        self.files = files
        self.sources = sources

    def spec(self, fullname: str, inner: str) -> ModuleSpec:
        for name, is_package in ((f"{inner}/__init__.py", True), (f"{inner}.py", False)):
            if name in self.sources:
                path = self.place / name
                loader = _Loader(str(path), self.sources[name])
                spec = ModuleSpec(fullname, loader, origin=str(path), is_package=is_package)
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations = [str(path.parent)]
                return spec
        for suffix in EXTENSION_SUFFIXES:
            if inner + suffix in self.files:
                place = str(self.place / (inner + suffix))
                found = importlib.util.spec_from_file_location(
                    fullname, place, loader=ExtensionFileLoader(fullname, place)
                )
                assert found is not None
                return found
        if any(name.startswith(f"{inner}/") for name in self.files):
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(self.place / inner)]
            return spec
        raise ModuleNotFoundError(f"No module named {fullname!r}; the card lists no such file", name=fullname)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.folders: dict[str, _Folder] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, inner = fullname.partition(".")
        folder = self.folders.get(package)
        return None if folder is None or not inner else folder.spec(fullname, inner.replace(".", "/"))


class _Loader(importlib.abc.SourceLoader):
    def __init__(self, path: str, source: bytes) -> None:
        self._path = path
        self._source = source

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: Any) -> bytes:
        return self._source if str(path) == self._path else Path(path).read_bytes()

    def path_stats(self, path: Any) -> Any:
        raise OSError("compiled files are neither read nor written")


_finder = _Finder()
