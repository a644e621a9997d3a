"""Names that several repositories share, since their ResNets have one origin."""

FLAT_STEM = (
    (r"^conv1\.weight$", "backbone.conv1.0.weight"),
    (r"^bn1\.", "backbone.conv1.1."),
    (r"^conv2\.", "backbone.conv1.3."),
    (r"^bn2\.", "backbone.conv1.4."),
    (r"^conv3\.", "backbone.conv1.6."),
    (r"^bn3\.", "backbone.bn1."),
    (r"^layer([1-4])\.", r"backbone.layer\1."),
)
"""Of a deep stem whose layers are counted, and of the stages behind it (MIT's semantic segmentation)."""

EVERY_NORM = r"backbone\..*(bn\d|conv1\.[14]|downsample\.1)\.weight|(?!backbone\.).*\.1\.weight"
"""Our keys of every norm's scale where norms stand behind a convolution: all of them were InPlaceABNSync."""
