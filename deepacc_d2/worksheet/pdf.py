"""Prints a worksheet: HTML to PDF by WeasyPrint, which loads nothing but what the page holds."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from PIL import ImageFile

from deepacc_d2.errors import ConfigError
from deepacc_d2.files import whole_file, write_text


class NoPrinterError(ConfigError):
    """WeasyPrint, or the system's Pango that it needs, is not there."""


def printer() -> Any:
    """Returns WeasyPrint's module.

    Raises:
        NoPrinterError: it is not installed, or finds no Pango.
    """
    strict = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
    except ModuleNotFoundError:
        raise NoPrinterError(
            "worksheets are HTML only: for PDF too, run make setup EXTRAS=worksheet"
        ) from None
    except OSError as error:
        raise NoPrinterError(
            f"worksheets are HTML only: WeasyPrint finds no Pango ({str(error).splitlines()[0]}): "
            "install it, such as by apt-get install libpango-1.0-0 libpangoft2-1.0-0"
        ) from None
    finally:
        # It has Pillow read damaged files in the whole process: then half an image is a metaphase.
        ImageFile.LOAD_TRUNCATED_IMAGES = strict
    # It tells of each CSS rule that it does not know.
    logging.getLogger("weasyprint").setLevel(logging.CRITICAL)
    logging.getLogger("fontTools").setLevel(logging.CRITICAL)
    # Without HarfBuzz's subsetter, fontTools makes the fonts and writes the time into each.
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    return weasyprint


def write_pdf(html: str, path: Path) -> None:
    """Prints a page; the same bytes each time.

    Args:
        html: a page that needs nothing from elsewhere.
        path: of the PDF.

    Raises:
        NoPrinterError: see :func:`printer`.
        OSError: the file cannot be written.
    """
    weasyprint = printer()
    from weasyprint.urls import URLFetcher

    only_within = URLFetcher(allowed_protocols={"data"})
    page = weasyprint.HTML(string=html, url_fetcher=only_within)
    path.write_bytes(page.write_pdf())


class Worksheets:
    """Writes worksheets into a folder, as HTML and, where there is a printer, as PDF.

    Attributes:
        problem: why there is no PDF; empty if there is, or nothing was written yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problem = ""

    def write(self, name: str, html: str) -> None:
        """Writes one.

        Args:
            name: of the files, without their suffixes.
            html: of :func:`deepacc_d2.worksheet.sheet.worksheet_html`.

        Raises:
            OSError: a file cannot be written.
        """
        self.root.mkdir(exist_ok=True)
        write_text(self.root / f"{name}.html", html)
        if self.problem:
            return
        try:
            with whole_file(self.root / f"{name}.pdf") as path:
                write_pdf(html, path)
        except NoPrinterError as error:
            self.problem = str(error)
        except OSError:
            raise
        except Exception as error:  # a page that cannot be printed must not end a job
            self.problem = f"worksheet {name} cannot be printed ({error}): print its HTML"
