"""The endpoints of a model: which one takes a call, which are left alone, and what they may bear.

`order` says which endpoint comes first, `circuit` which ones are left alone, `quota` how much a
minute holds, and `learned` what it holds where nobody wrote that down: all four are pure. `desk`
is a model and its endpoints, `desks` all as the newest catalog has them. `gate` takes quota in
one round trip, `sharing` tells the other workers once a second through the `board`, `probing` asks
endpoints whether they live, `learning` takes in what they say, and `balancer` puts them together.
"""
