"""Stage 7: history -> files a person reads.

`jsonl` keeps the run's record, `trackers` send it on, `console` shows it while and after it runs,
`html` writes `report.html`. Import what you need from its file: matplotlib, rich, jinja2 and
TensorBoard are imported only there.
"""
