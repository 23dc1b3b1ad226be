"""The endpoints of a model: which one takes a call, which are left alone, and what they may bear.

`order` says which endpoint comes first, `circuit` which ones are left alone, `quota` how much a
minute holds: all three are pure. `board` shares what the workers know of endpoints once a second,
`gate` takes quota in one round trip, and `balancer` puts them together.
"""
