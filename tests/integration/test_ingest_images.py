"""Manifests: images from a zip or a folder, each checked and kept once; what is missing or broken holds its row."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.errors import BadInput
from flows.images import image_reader
from flows.store import current_rows

HEADER = "part,time,picture,ok\n"


def picture(shade: int, kind: str = "PNG", size: tuple[int, int] = (12, 9)) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", size, (shade, shade, 255 - shade)).save(sink, kind)
    return sink.getvalue()


def row(part: str, path: str, ok: str = "0") -> str:
    return f"{part},2026-04-01 10:00,{path},{ok}\n"


def zipped(path: Path, images: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in images.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def gallery(new_site: Callable[..., Any]) -> Any:
    """A site whose model looks at pictures."""
    return new_site(data={"numeric": [], "categorical": [], "slices": [], "image": "picture"})


def held(site: Any) -> dict[str, str]:
    found = site.store.read("quarantine")
    return {row["_id"]: json.loads(row["reasons"])[0]["message"] for _, row in found.iterrows()}


def test_images_of_a_zip_beside_the_manifest(gallery: Any) -> None:
    images = {"a.png": picture(1), "sub/b.jpg": picture(2, "JPEG"), "twin.png": picture(1)}
    zipped(gallery.folder / "week.zip", images)
    text = HEADER + row("P1", "a.png") + row("P2", "sub/b.jpg") + row("P3", "b.jpg") + row("P4", ".\\twin.png")
    report = gallery.ingest(gallery.file("week.csv", text))
    assert (report.accepted, report.quarantined) == (4, 0)
    found = current_rows(gallery.store)
    assert found["_image"].tolist()[0] == hashlib.sha256(images["a.png"]).hexdigest()
    assert found["_image"].tolist()[0] == found["_image"].tolist()[3]
    assert found["_image"].tolist()[1] == found["_image"].tolist()[2]
    read = image_reader(gallery.workspace)
    assert read(found["_image"][1]) == images["sub/b.jpg"]
    assert len([path for path in gallery.workspace.images.rglob("*") if path.is_file()]) == 2


def test_missing_and_broken_images_hold_their_rows(gallery: Any) -> None:
    cut = picture(9, size=(300, 300))
    images = {"good.png": picture(3), "cut.png": cut[: len(cut) // 2], "text.png": b"no image at all", "empty.png": b""}
    zipped(gallery.folder / "week.zip", images)
    names = ["good.png", "gone.png", "cut.png", "text.png", "empty.png", "", "../good.png", "/etc/passwd", "C:/x.png"]
    text = HEADER + "".join(row(f"P{number}", name) for number, name in enumerate(names))
    gallery.settings = gallery.settings.model_copy(
        update={"ingest": gallery.settings.ingest.model_copy(update={"max_bad_share": 1.0})}
    )
    report = gallery.ingest(gallery.file("week.csv", text))
    assert (report.read, report.accepted, report.quarantined) == (9, 1, 8)
    assert held(gallery) == {
        "P1": "image 'gone.png' is not in week.zip",
        "P2": "image 'cut.png' is no image, or a broken one",
        "P3": "image 'text.png' is no image, or a broken one",
        "P4": "image 'empty.png' is no image, or a broken one",
        "P5": "picture is empty, so the row has no image",
        "P6": "image '../good.png' points outside week.zip",
        "P7": "image '/etc/passwd' points outside week.zip",
        "P8": "image 'C:/x.png' points outside week.zip",
    }
    assert "row 2, column 'picture': image 'gone.png' is not in week.zip" in report.sentences[0]


def test_an_image_that_would_fill_the_memory_is_refused(gallery: Any) -> None:
    small = picture(1)
    # The header of a PNG of 60,000 x 60,000 pixels, on a file of a few bytes.
    huge = small[:16] + (60_000).to_bytes(4, "big") * 2 + small[24:]
    huge = huge[:29] + zlib.crc32(huge[12:29]).to_bytes(4, "big") + huge[33:]
    zipped(gallery.folder / "week.zip", {"huge.png": huge, "good.png": small})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = gallery.ingest(gallery.file("week.csv", HEADER + row("P1", "huge.png") + row("P2", "good.png")))
    assert report.quarantined == 1
    assert held(gallery)["P1"] == "image 'huge.png' has more than the 100,000,000 pixels allowed"


def test_images_of_a_folder_stay_inside_it(gallery: Any) -> None:
    folder = gallery.folder / "week"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(1))
    (gallery.folder / "secret.png").write_bytes(picture(7))
    (folder / "link.png").symlink_to(gallery.folder / "secret.png")
    report = gallery.ingest(gallery.file("week.csv", HEADER + row("P1", "a.png") + row("P2", "link.png")))
    assert (report.accepted, report.quarantined) == (1, 1)
    assert held(gallery) == {"P2": "image 'link.png' points outside week"}


def test_another_picture_under_the_same_name_is_a_correction(gallery: Any) -> None:
    zipped(gallery.folder / "one.zip", {"a.png": picture(1)})
    zipped(gallery.folder / "two.zip", {"a.png": picture(2)})
    gallery.ingest(gallery.file("one.csv", HEADER + row("P1", "a.png")))
    assert gallery.ingest(gallery.file("two.csv", HEADER + row("P1", "a.png") + row("P2", "a.png"))).corrections == 1
    zipped(gallery.folder / "three.zip", {"a.png": picture(2)})
    report = gallery.ingest(gallery.file("three.csv", HEADER + row("P2", "a.png") + row("P1", "a.png")))
    assert report.duplicates == 2


@pytest.mark.parametrize("content", [b"no zip", b"PK\x03\x04 cut off"])
def test_an_archive_that_cannot_be_opened(gallery: Any, content: bytes) -> None:
    (gallery.folder / "week.zip").write_bytes(content)
    with pytest.raises(BadInput, match=r"week\.zip: the archive of images cannot be opened .*; copy it again"):
        gallery.ingest(gallery.file("week.csv", HEADER + row("P1", "a.png")))
    assert gallery.sums() == {"files": 0, "inspections": 0, "quarantine": 0, "labels": 0}


def test_a_manifest_without_its_images_says_where_they_should_be(gallery: Any) -> None:
    with pytest.raises(
        BadInput, match=r"week\.csv, column 'picture': .* as week\.zip or as the folder week, or name them"
    ):
        gallery.ingest(gallery.file("week.csv", HEADER + row("P1", "a.png")))


def test_the_config_names_the_images_of_files_that_have_none_beside_them(new_site: Callable[..., Any]) -> None:
    data = {"numeric": [], "categorical": [], "slices": [], "image": "picture", "images": "all.zip"}
    site = new_site(data=data)
    zipped(site.folder / "all.zip", {"a.png": picture(1)})
    assert site.ingest(site.file("week.csv", HEADER + row("P1", "a.png"))).accepted == 1
    zipped(site.folder / "next.zip", {"a.png": picture(5)})
    site.ingest(site.file("next.csv", HEADER + row("P2", "a.png")))
    assert current_rows(site.store)["_image"].nunique() == 2


def test_a_manifest_leaves_the_inbox_with_its_images(gallery: Any) -> None:
    zipped(gallery.workspace.inbox / "week.zip", {"a.png": picture(1)})
    gallery.drop("week.csv", HEADER + row("P1", "a.png"))
    zipped(gallery.workspace.inbox / "later.zip", {"b.png": picture(2)})
    assert [report.status for report in gallery.inbox()] == ["accepted"]
    assert [Path(path).name for path in gallery.lying()] == ["later.zip"]
    assert sorted(path.name for path in gallery.workspace.archive.iterdir()) == ["week.csv", "week.zip"]


def test_an_image_that_is_lost_or_changed_is_an_error(gallery: Any) -> None:
    zipped(gallery.folder / "week.zip", {"a.png": picture(1)})
    gallery.ingest(gallery.file("week.csv", HEADER + row("P1", "a.png")))
    digest = current_rows(gallery.store)["_image"][0]
    read = image_reader(gallery.workspace)
    [path] = [path for path in gallery.workspace.images.rglob("*") if path.is_file()]
    path.write_bytes(picture(4))
    with pytest.raises(BadInput, match="the image is not what it was when it was taken in; restore it from a backup"):
        read(digest)
    path.unlink()
    with pytest.raises(BadInput, match=r"is not in .*; ingest its manifest again"):
        read(digest)


@pytest.mark.real_data
def test_the_patches_of_the_ball_screws(new_site: Callable[..., Any], real_data: Path) -> None:
    folder = real_data / "bsdata_ball_screw"
    data = {"id": "file", "time": None, "label": "label", "numeric": [], "categorical": [], "slices": ["position"],
            "image": "file", "window": {"rows": 200}}  # fmt: skip
    site = new_site(data=data)
    for name in ("patches.csv", "patches.zip"):
        shutil.copy(folder / name, site.folder / name)
    report = site.ingest(site.folder / "patches.csv")
    assert (report.status, report.quarantined) == ("accepted", 0)
    assert report.read == report.accepted == report.labels > 1000
    read = image_reader(site.workspace)
    with zipfile.ZipFile(folder / "patches.zip") as archive:
        for _, found in current_rows(site.store).head(20).iterrows():
            assert read(found["_image"]) == archive.read(found["file"])


def test_names_as_windows_and_macs_pack_them(gallery: Any) -> None:
    # Neither of the archives says that its names are UTF-8; 表 has a backslash for its second byte in CP932.
    names = {"cp932": "表面.png", "utf-8": "傷.png"}
    for encoding, name in names.items():
        stand_in = "A" * len(name.removesuffix(".png").encode(encoding)) + ".png"
        place = zipped(gallery.folder / f"{encoding}.zip", {stand_in: picture(3)})
        place.write_bytes(place.read_bytes().replace(stand_in.encode(), name.encode(encoding)))
        report = gallery.ingest(gallery.file(f"{encoding}.csv", HEADER + row(encoding, name)))
        assert (report.accepted, report.quarantined) == (1, 0), held(gallery)
    apart = unicodedata.normalize("NFD", "ガ.png")
    assert apart != "ガ.png"
    zipped(gallery.folder / "mac.zip", {f"写真/{apart}": picture(4)})
    assert (
        gallery.ingest(gallery.file("mac.csv", HEADER + row("P3", "ガ.png") + row("P4", "写真/ガ.png"))).accepted == 2
    )


def test_names_in_a_folder_are_found_however_they_are_spelled(gallery: Any) -> None:
    folder = gallery.folder / "week"
    (folder / "写真").mkdir(parents=True)
    (folder / "写真" / unicodedata.normalize("NFD", "ガ.png")).write_bytes(picture(5))
    (folder / "ド.png").symlink_to("/etc/hostname")
    (folder / "b.png").write_bytes(picture(6))
    wanted = ["写真/ガ.png", "ギ.png", "ド.png", "b.png"]
    text = HEADER + "".join(row(f"P{number}", name) for number, name in enumerate(wanted, start=1))
    report = gallery.ingest(gallery.file("week.csv", text))
    assert (report.accepted, report.quarantined) == (2, 2)
    assert held(gallery)["P2"] == "image 'ギ.png' is not in week"
    assert "points outside week" in held(gallery)["P3"]
