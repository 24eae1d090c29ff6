"""The steps of thumbtune, one file each, in the order in which data flows through them.

parameters → videos → splits → negatives → thumbnails → freezing → training → evaluation → report
→ publishing. `workspace` keeps what the steps produce, `caching` decides what need not run again.
"""

from tasks.errors import log_in_one_line

log_in_one_line()  # in the workers of Dask and Ray too, which import nothing but steps
