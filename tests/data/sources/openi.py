"""IU X-Ray in its original layout, made of invented or given reports: XML files and PNG images in tar.gz archives."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image


def xml(uid: str, images: Iterable[str], *, tags: Iterable[str] = ("normal",), **sections: str) -> bytes:
    """One report as Open-i writes it; sections by their lower-case label."""
    texts = "".join(
        f"<AbstractText Label={quoteattr(label.upper())}>{escape(text)}</AbstractText>"
        for label, text in sections.items()
    )
    majors = "".join(f"<major>{escape(tag)}</major>" for tag in tags)
    figures = "".join(
        f"<parentImage id={quoteattr(image)}><figureId>F{i + 1}</figureId><caption>Xray Chest PA and Lateral</caption>"
        f'<panel type="single"><url>/extract/{image}.jpg</url></panel></parentImage>'
        for i, image in enumerate(images)
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><meta type="rr"/><uId id="CXR{uid}"/>'
        f"<MedlineCitation><Article><Abstract>{texts}</Abstract></Article></MedlineCitation>"
        f"<MeSH>{majors}</MeSH>{figures}</eCitation>"
    ).encode()


def png(seed: int = 0, size: int = 32) -> bytes:
    """A made-up image."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def tgz(path: Path, files: Mapping[str, bytes]) -> Path:
    """Files by name as a tar.gz archive."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
