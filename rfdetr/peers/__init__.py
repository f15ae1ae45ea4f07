"""The paper's other detectors: listed, built from public packages, counted, exported, timed.

`catalogue` reads the committed record of what was counted (`peers.yaml`); it needs nothing more than this
package. `building` makes the networks with random weights, or with weights from a file, and needs the extra
`peers` (`pip install 'rf-detr-nas-companion[peers]'`). `deploying` makes of them what is deployed, `counting`
counts again, `exporting` writes ONNX files with the inputs and outputs of this package's own exports, so that
`predict`, `evaluate`, `benchmark` and `rfdetr.load_exported` take them like those. `timing` times one
file in a process of its own.

Most YOLO families come from the package `ultralytics`, whose licence is AGPL-3.0: it is imported by the two
functions that build and count them and by nothing else. `libre` has the networks of the package `libreyolo`
(MIT), which it also builds for other classes, to be trained. `standing_in` tells whether a file is as
accurate as its network where there are neither weights nor labels.
"""
