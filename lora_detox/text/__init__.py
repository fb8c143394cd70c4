"""Words and ROUGE of texts in any script: `words` says what a word is, `rouge` compares by it.

`kinds` names the rules that a set of texts was read by, for reports.
"""
