"""A linear classifier of relations.

A config sets the backbone and the head's in_channels. The pooling is nearly the maximum: behind an
average the one disc that is the answer moves the logits too little to be learned from.
"""

model = dict(
    type='ImageClassifier',
    neck=dict(type='GeneralizedMeanPooling', p=8.0, eps=0.01),
    head=dict(
        type='LinearClsHead',
        num_classes=6,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1,),
    ),
)
