"""Reports: one self-contained page with its tables beside it, and small previews."""

from arb_pipeline.reports.preview import markdown_preview, png_preview
from arb_pipeline.reports.report import ReportFiles, ReportInputs, build_report

__all__ = ["ReportFiles", "ReportInputs", "build_report", "markdown_preview", "png_preview"]
