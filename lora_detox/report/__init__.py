"""Stage 7: history -> files a person reads.

`jsonl` keeps the run's record, `trackers` send it on, `console` shows it while and after it runs,
`contents` is what is said of it, which `html` writes as report.html and report.md and `card` as the
model card. Pages share `page.html.j2`, `parts.html.j2`, `page.css` and `page.js`. Import what you
need from its file: matplotlib, rich, jinja2 and TensorBoard are imported only there.
"""
