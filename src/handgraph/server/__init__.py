"""A page and an HTTP interface on this machine: `handgraph serve`.

A request goes `protocol` (bytes, in time) → `guard` (who asks, how much) → `app` (what is asked) → `jobs`
(when there is a place) → `work` (the same estimators, subjects and writers as everywhere else).
"""
