"""Pairs markets of the two venues that ask the same question.

Similarity proposes, rules decide, people overrule: text similarity only finds candidates, disagreements of typed facts
veto, and every surviving pair waits for a person until its kind of question has earned trust by measurement.
"""
