"""Pairs markets of the two venues that ask the same question.

Similarity proposes, rules decide, people overrule: text similarity only finds candidates, typed facts decide how two
questions relate, and a pair waits for a person unless its kind of question is known and nothing of it is left open.
"""
