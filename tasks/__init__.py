"""The steps of thumbtune, one file each, in the order in which data flows through them.

parameters → videos → splits → negatives → thumbnails → freezing → training → evaluation → report
→ publishing. `workspace` keeps what the steps produce, `caching` decides what need not run again.
"""
