"""Answers that were given before: kept in Redis, found again, and made once at a time.

`entry` decides under what an answer is kept and which ones are, `flight` who makes it while others
wait, `prompts` which prompt is like another; `store` is all that talks to Redis.
"""
