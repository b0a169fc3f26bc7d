"""The files of the fleet page, as browsers may keep them."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from edge_otel import page_files
from edge_otel.api.ui_page import PageFiles


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the files, which are served."""
    copy = shutil.copytree(page_files.FOLDER, tmp_path / "ui")
    monkeypatch.setattr(page_files, "FOLDER", copy)
    return copy


def kept(folder, path):
    """Return what a browser is told of keeping a file."""
    scope = {"type": "http", "method": "GET", "headers": []}
    return asyncio.run(PageFiles(directory=folder).get_response(path, scope)).headers["Cache-Control"]


def test_files_that_an_upgrade_replaces_beside_a_running_server_are_not_kept_as_the_old_ones(folder):
    before = page_files.edition()
    assert "immutable" in kept(folder, f"{before}/page.js")
    (folder / "text.js").write_text("// newer")
    assert kept(folder, f"{before}/page.js") == kept(folder, f"{before}/text.js") == "no-cache"
    assert "immutable" in kept(folder, f"{page_files.edition()}/text.js")
