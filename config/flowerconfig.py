"""Flower, wherever it runs: `modelyard up` and docker-compose give it this file with --conf.

Options: https://flower.readthedocs.io/en/latest/config.html. Those that differ from place to place
(address, port, password, where the history is kept) come from FLOWER_* variables or the command
line, so they are not here.
"""

# A request is two rows, the router's hop and the model's. Their arguments say in a few words what
# came in and what was decided; prompts and answers are not shown.
tasks_columns = "name,uuid,state,runtime,worker,received,args"

# Rows in memory; each request takes two.
max_tasks = 50_000

# A container that is replaced comes back under a new name. Drop the old one after so many
# seconds, from the list of workers and from the metrics.
purge_offline_workers = 600

# How long a worker may take to say what it does, in milliseconds.
inspect_timeout = 3000.0

# Models answer in seconds to minutes; Flower's own buckets end at 10 s.
task_runtime_metric_buckets = [
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
    320.0,
]
