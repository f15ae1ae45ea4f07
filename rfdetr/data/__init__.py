"""Data: embedded scenes, COCO-format and Pascal VOC folders, registered public datasets, image transforms."""
