"""Submit a few requests and print each answer as it comes.

MODELYARD_BROKER_URL=redis://... python examples/sync_client.py
"""

from modelyard import Client, RequestFailed

TEXTS = [
    "Summarize: The yard was full. Two trains waited. The third one left at noon.",
    "Summarize: The bridge is closed in May. Use the ferry. It runs every hour.",
    "Summarize: Stocks are low. The supplier was late. Orders wait until Friday.",
]

with Client() as yard:
    handles = yard.submit_many(TEXTS)
    for handle in yard.as_completed(handles, timeout_s=60):
        try:
            answer = handle.result()
        except RequestFailed as failed:
            print(f"{handle.id}: {failed.reason}: {failed}")
        else:
            print(f"{handle.id}: {answer.text} ({answer.model}, ${answer.cost_usd:.6f})")
