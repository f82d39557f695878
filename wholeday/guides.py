"""The addresses of the guides that messages and help texts name."""

FAILED_DAY = "https://wholeday.github.io/wholeday/how-to/failed-day.html"
OF_STAGES = {
    "extract": f"{FAILED_DAY}#the-source",
    "transform": f"{FAILED_DAY}#the-gates",
    "load": f"{FAILED_DAY}#files-and-database",
}
"""Where the guide lists the failures of a stage."""
WRONG_CLOCK = f"{FAILED_DAY}#a-wrong-clock"
WRONG_SOURCE = f"{FAILED_DAY}#what-has-no-line"
STATUS_KEYS = "https://wholeday.github.io/wholeday/how-to/alerts.html#the-status-as-json"
KEYS = "https://wholeday.github.io/wholeday/reference/configuration.html"
