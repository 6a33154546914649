"""Binary neural networks for dense prediction.

Importing this package is light; its parts are imported when they are named:
`densebnn.binary`, `densebnn.backbones`, `densebnn.contrastive`, `densebnn.data`, `densebnn.dense`, `densebnn.tasks`,
`densebnn.engine`.
"""

__version__ = "0.1.0"
