"""Measures what mai costs, as ratios taken in one run; ``python -m benchmarks`` runs all and prints one table.

Each ``bench_*.py`` states its question at the top. It first asserts that the objects that it times keep every promise
of a call (`benchmarks.promises`); only then does it time them. A record of each run is kept in ``benchmarks/records``.
"""
