"""Count, check, describe, show and convert a dataset, or suggest settings for it.

python scripts/data.py [ACTION] dataset=... [key=value ...]
"""

from detector.config.command_line import Action, run

ACTIONS = {
    "check": Action("data_check", "detector.config.check.check"),
    "stats": Action("data_stats", "detector.config.stats.stats"),
    "show": Action("data_show", "detector.config.show_data.show_data"),
    "convert": Action("data_convert", "detector.config.convert.convert"),
    "suggest": Action("data_suggest", "detector.config.suggest.suggest_settings"),
}

if __name__ == "__main__":
    run("data", "detector.config.summary.print_summary", actions=ACTIONS)
