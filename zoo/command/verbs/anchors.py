"""Find anchor boxes for a detection data set by k-means with IoU, and draw its classes and sizes.

    zoo anchors VOCdevkit/VOC2007 --k 3 4 5

The file or folder is in Pascal VOC, COCO, VGG Image Annotator or CSV format; a relative path may also be one below
$ZOO_DATA. Writes anchors.json, which recipes read, and anchors.png.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("annotations", type=str, metavar="FILE_OR_FOLDER", help="annotations")
    parser.add_argument(
        "--attribute", type=str, help="of VGG Image Annotator: the region attribute that holds the class"
    )
    parser.add_argument("--images", type=str, help="folder of the images, if they are not beside the annotations")
    parser.add_argument("--k", type=int, nargs="+", default=[3, 4, 5, 6], help="numbers of anchors")
    parser.add_argument("--out", type=Path, default=Path("anchors"), help="folder of anchors.json and anchors.png")
