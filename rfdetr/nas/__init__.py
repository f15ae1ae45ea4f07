"""The whole search as one run: data and a device in, chosen networks and a report out.

Stages, each resumable, each a function of its own: `look` at the data, `plan` the time, train the `supernet`,
`find` accuracies and latencies, `choose` by latency, `finetune` what was chosen, `handover` files that work
alone, `report`. `pipeline.run` chains them. Source: Section 3 and the RF100-VL protocol of Section 4.
"""
