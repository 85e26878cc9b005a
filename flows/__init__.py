"""The pipeline: from a file in the inbox to a promoted model, an alert and a page.

Imports point one way only: ``flows`` may import ``monitoring`` and ``softad``, never the other way round.
"""

from flows._quiet import silence_telemetry as _silence_telemetry

_silence_telemetry()
