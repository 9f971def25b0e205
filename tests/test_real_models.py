"""Learners on models of other libraries, each skipped with a reason where its library is missing."""
import pytest
import torch
import torch.nn.functional as F

from nntrain.all import *


def batches(make, sizes=(5, 6, 7), seed=0):
    "Batches of 8 texts, each batch of another width."
    draw = torch.Generator().manual_seed(seed)
    found = []
    for width in sizes:
        ids = torch.randint(3, 100, (8, width), generator=draw)
        found.append(dict(input_ids=ids, attention_mask=torch.ones_like(ids), **make(ids, draw)))
    return found


def classes(ids, draw): return dict(labels=torch.randint(3, (len(ids),), generator=draw))
def tokens(ids, draw): return dict(labels=ids.clone())
def spans(ids, draw):
    start,end = torch.randint(5, (2, len(ids)), generator=draw)
    return dict(start_positions=start, end_positions=end)


def small(kind):
    "A small model of transformers with random weights, and what makes its targets."
    tf = pytest.importorskip('transformers', reason='the extra transformers is not installed')
    torch.manual_seed(0)
    bert = dict(vocab_size=100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=32, max_position_embeddings=32, num_labels=3)
    if kind == 'classifier': return tf.BertForSequenceClassification(tf.BertConfig(**bert)),classes
    if kind == 'tuples': return tf.BertForSequenceClassification(
        tf.BertConfig(**bert, return_dict=False)),classes
    if kind == 'questions': return tf.BertForQuestionAnswering(
        tf.BertConfig(**{**bert, 'num_labels': 2})),spans
    if kind == 'masked words': return tf.BertForMaskedLM(tf.BertConfig(**bert)),tokens
    if kind == 'GPT-2': return tf.GPT2LMHeadModel(tf.GPT2Config(
        vocab_size=100, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=1,
        eos_token_id=2)),tokens
    return tf.T5ForConditionalGeneration(tf.T5Config(
        vocab_size=100, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        decoder_start_token_id=0)),tokens


KINDS = 'classifier','tuples','questions','masked words','GPT-2','T5'


def learner(kind, *subs):
    model,make = small(kind)
    dls = DataLoaders(batches(make), batches(make, (7, 5), seed=1))
    return Learner(model, dls, None, torch.optim.AdamW, 1e-3, subs)


def first_of(preds): return preds[0] if isinstance(preds, tuple) else preds


@pytest.mark.parametrize('kind', KINDS)
def test_every_verb_takes_a_model_that_computes_its_loss(kind, tmp_path):
    learn = learner(kind)
    by_hand,_ = small(kind)
    opt = torch.optim.AdamW(by_hand.parameters(), 1e-3)
    torch.manual_seed(1)
    for batch in learn.dls.train:
        output = by_hand(**batch)
        (output[0] if isinstance(output, tuple) else output.loss).backward()
        opt.step()
        opt.zero_grad()
    torch.manual_seed(1)
    learn.fit(1)
    assert all(map(torch.equal, learn.model.parameters(), by_hand.parameters()))

    by_hand.eval()
    preds,targets,losses = learn.get_preds(losses=True)
    target = first_of(targets)
    assert len(first_of(preds)) == len(target) == len(losses) == 16
    with torch.no_grad(): output = by_hand(**learn.dls.valid[1])
    scores = output[1] if isinstance(output, tuple) else output.get(
        'logits', output.get('start_logits'))
    mine = first_of(preds)[8:]
    width = scores.shape[1]                  # of this batch, the other one is wider
    assert torch.allclose(mine[:, :width], scores, atol=1e-5)
    assert (mine[:, width:] == -100).all()
    assert learn.validate()['loss'] == pytest.approx(losses.mean().item(), rel=1e-4)
    with learn.rehearse(): learn.fit(1)
    learn.check()
    if kind == 'classifier': learn.explain()
    assert 1e-8 < learn.lr_find(n_batches=10, repeats=1, tries=0).lrs[0] < 10
    learn.fit_one_cycle(1, 1e-3, subs=EMAS())
    learn.save(tmp_path/'model.safetensors')
    again = learner(kind)
    again.load(tmp_path/'model.safetensors')
    assert again.validate() == learn.validate()


@pytest.mark.parametrize('kind', KINDS)
def test_resume_in_the_middle_of_an_epoch(kind):
    states = []
    whole = learner(kind)
    def keep(learn):
        if learn.training and learn.iter == 1: states.append(learn.state_dict())
    whole.on('after_batch', keep, order=SAVE+1)
    torch.manual_seed(1)
    whole.fit(2)
    part = learner(kind)
    part.fit(2, resume=states[0])
    assert all(map(torch.equal, part.model.parameters(), whole.model.parameters()))


def test_a_batch_of_a_table_of_transformers(capsys):
    "Confusion, top losses, results and pictures of the batch, with the texts of a tokenizer."
    import matplotlib.pyplot as plt
    learn = learner('classifier')
    learn.dls.classes,learn.dls.decode = list('abc'),lambda ids: ' '.join(map(str, ids.tolist()))
    preds,targets = learn.get_preds()
    table = torch.zeros(3, 3).long()
    for true,said in zip(targets, preds.argmax(1)): table[true, said] += 1
    assert torch.equal(learn.confusion(), table)
    rows,axes = learn.top_losses(n=3)
    assert rows == F.cross_entropy(preds, targets, reduction='none').argsort(
        descending=True)[:3].tolist()
    assert axes.flat[0].texts[0].get_text().split()[0] == str(
        learn.get_preds(inputs=True)[2]['input_ids'][rows[0], 0].item())
    learn.show_batch()
    learn.show_results()
    plt.close('all')
