"""A synthetic month of a small cluster, and the programs that show it: `make demo`.

Everything here is invented, from one seed: `cluster` says what there is, `mix` who ran, `grid` what electricity
emitted. `history` writes what exporters would have published, `truth` adds up the same month without any counter, so
that what a dashboard shows can be held against it.
"""
