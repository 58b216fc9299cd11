"""Review of predicted cells in a browser: corrections as events, a record of them, and results.

The prediction stays as ``make predict`` wrote it. A cell's state is a pure function of it and of
the events (:func:`deepacc_d2.review.replay.replay`); all that is told of the cell is computed anew
from that state (:func:`deepacc_d2.review.recount.recount`). See docs/REVIEW.md.
"""
