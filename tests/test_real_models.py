"""Learners on models of other libraries, each skipped with a reason where its library is missing."""
import os

import pytest
import torch
import torch.nn.functional as F

from nntrain.all import *
from nntrain.checkpoint.folder import resume
from nntrain.inference.export import few_rows, tensors_of
from nntrain.learner import split_batch


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
def test_a_model_that_computes_its_loss(kind):
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
    if kind in ('classifier', 'questions'): learn.check()
    if kind == 'classifier': learn.explain()


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


# Each function below makes a learner of one kind of client.

def pieces(make, n=4, bs=4, **kwargs):
    "Training and validation loaders over rows."
    torch.manual_seed(0)
    rows = [make(i) for i in range(n*bs)]
    return DataLoaders(*(torch.utils.data.DataLoader(rows, bs, **kwargs) for _ in range(2)))


def needs(name):
    more = ', or torchvision, without which it cannot be imported,'*(name == 'timm')
    extra = name.replace('torch_geometric', 'graphs')
    return pytest.importorskip(
        name, reason=f"{name}{more} is not installed: pip install 'nntrain[{extra}]'")


def text(*subs): return learner('classifier', *subs)
def questions(*subs): return learner('questions', *subs)
def masked(*subs): return learner('masked words', *subs)
def words(*subs): return learner('GPT-2', *subs)


def sequences(*subs):
    "The decoder's words are inputs, which a file needs; else the model makes them of its targets."
    learn = learner('T5', *subs)
    for loader in (learn.dls.train, learn.dls.valid):
        for batch in loader: batch['decoder_input_ids'] = learn.model._shift_right(batch['labels'])
    return learn


def vision(*subs):
    tf = needs('transformers')
    torch.manual_seed(0)
    model = tf.ViTForImageClassification(tf.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_channels=1, num_labels=3))
    dls = pieces(lambda i: dict(pixel_values=torch.randn(1, 8, 8), labels=i%3))
    return Learner(model, dls, None, torch.optim.AdamW, 1e-3, subs)


def lora(*subs):
    peft = needs('peft')
    model,make = small('classifier')
    torch.manual_seed(0)
    model = peft.get_peft_model(model, peft.LoraConfig(
        task_type='SEQ_CLS', r=2, target_modules=['query', 'value'], lora_dropout=0.1))
    dls = DataLoaders(batches(make), batches(make, (7, 5), seed=1))
    return Learner(model, dls, None, torch.optim.AdamW, 1e-2, subs)


def pictures(*subs):
    timm = needs('timm')
    torch.manual_seed(0)
    model = timm.create_model('resnet18', num_classes=3, in_chans=1)
    dls = pieces(lambda i: (torch.randn(1, 32, 32), i%3), n=2)
    return Learner(model, dls, F.cross_entropy, torch.optim.SGD, 1e-2, subs)


class Segmenter(torch.nn.Sequential):
    def __init__(self):
        conv = torch.nn.Conv2d
        super().__init__(conv(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
                         conv(4, 3, 1))


def segmentation(*subs):
    torch.manual_seed(0)
    dls = pieces(lambda i: (torch.randn(1, 8, 8), torch.randint(3, (8, 8))))
    return Learner(Segmenter(), dls, F.cross_entropy, torch.optim.SGD, 0.1, subs)


class Detector(torch.nn.Module):
    "The protocol of torchvision's detection models: a dict of losses, or a list of boxes."
    def __init__(self):
        super().__init__()
        self.body,self.head = torch.nn.Conv2d(3, 4, 3, stride=2),torch.nn.Linear(4, 5)
    def forward(self, images, targets=None):
        found = [self.head(self.body(image[None]).relu().mean((2, 3)))[0] for image in images]
        found = torch.stack(found)
        if not self.training: return [dict(boxes=one[None, :4], scores=one[4:]) for one in found]
        boxes = torch.stack([target['boxes'].mean(0) for target in targets])
        return dict(loss_box=F.smooth_l1_loss(found[:, :4], boxes),
                    loss_object=F.softplus(-found[:, 4]).mean())


def overlap(found, targets):
    "A metric on boxes: how far the corners are from the mean of the wanted ones."
    far = [(f['boxes'][0]-t['boxes'].mean(0)).abs().mean() for f,t in zip(found, targets)]
    return torch.stack(far).mean()


def detection(*subs):
    torch.manual_seed(0)
    dls = pieces(lambda i: (torch.rand(3, 8+i, 9), dict(boxes=torch.rand(1+i%3, 4))),
                 collate_fn=lambda rows: tuple(zip(*rows)))
    return Learner(Detector(), dls, None, torch.optim.Adam, 0.01, subs)


def graph(*subs):
    nn,data = needs('torch_geometric.nn'),needs('torch_geometric.data')
    class Graphs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv,self.head = nn.GCNConv(4, 8),torch.nn.Linear(8, 2)
        def forward(self, batch):
            x = self.conv(batch.x, batch.edge_index).relu()
            return self.head(nn.global_mean_pool(x, batch.batch))
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    rows = [data.Data(x=torch.randn(3+i%3, 4), edge_index=edges, y=torch.tensor([i%2]))
            for i in range(10)]
    loader = needs('torch_geometric.loader').DataLoader
    dls = DataLoaders(loader(rows, 4), loader(rows, 4))
    return Learner(Graphs(), dls, F.cross_entropy, torch.optim.Adam, 0.01, subs)


class Autoencoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encode,self.decode = torch.nn.Linear(8, 4),torch.nn.Linear(2, 8)
    def forward(self, x):
        mean,log_var = self.encode(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean)*(log_var/2).exp() if self.training else mean
        return self.decode(z),mean,log_var


def elbo(found, x):
    decoded,mean,log_var = found
    return F.mse_loss(decoded, x) + (mean**2 + log_var.exp() - 1 - log_var).mean()/2


def autoencoder(*subs):
    def pair(i):
        x = torch.randn(8)
        return x,x
    torch.manual_seed(0)
    return Learner(Autoencoder(), pieces(pair), elbo, torch.optim.Adam, 0.01, subs)


class Diffusion(torch.nn.Module):
    "Predicts the noise; its loss is its own, so that noise and time are drawn with the batch."
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(9, 8)
    def forward(self, x):
        noise,t = torch.randn_like(x),torch.rand(len(x), 1)
        said = self.net(torch.cat([(1-t)*x + t*noise, t], dim=1))
        return F.mse_loss(said, noise),said


def diffusion(*subs):
    torch.manual_seed(0)
    return Learner(Diffusion(), pieces(lambda i: (torch.randn(8),)), None, torch.optim.Adam, 0.01,
                   subs)


class Twins(torch.nn.Linear):
    def forward(self, one, other): return super().forward(one),super().forward(other)


def nt_xent(found):
    "SimCLR: each row of one view is to find its twin among the rows of the other."
    one,other = [F.normalize(part, dim=1) for part in found]
    return F.cross_entropy(one @ other.T / 0.5, torch.arange(len(one)))


def contrastive(*subs):
    torch.manual_seed(0)
    dls = pieces(lambda i: (torch.randn(8), torch.randn(8)))
    return Learner(Twins(8, 4), dls, nt_xent, torch.optim.Adam, 0.01, subs, n_inp=2)


class Triplets(torch.nn.Linear):
    def forward(self, *three): return tuple(map(super().forward, three))


def triplets(*subs):
    torch.manual_seed(0)
    dls = pieces(lambda i: tuple(torch.randn(3, 8)))
    return Learner(Triplets(8, 4), dls, lambda found: F.triplet_margin_loss(*found),
                   torch.optim.Adam, 0.01, subs, n_inp=3)


def reinforce(*subs):
    "Pull the better of three arms; the reward is drawn in the loss."
    def loss(scores):
        said = torch.distributions.Categorical(logits=scores)
        action = said.sample()
        return -(said.log_prob(action)*(action == 1)).mean()
    torch.manual_seed(0)
    return Learner(torch.nn.Linear(2, 3), pieces(lambda i: (torch.ones(2),)), loss,
                   torch.optim.Adam, 0.05, subs)


def webdataset(*subs):
    wds = needs('webdataset')
    torch.manual_seed(0)
    rows = [dict(x=torch.randn(4), y=i%2) for i in range(12)]
    def loader():
        data = wds.DataPipeline(wds.SimpleShardList(['a']), lambda shards: (
            dict(row) for _ in shards for row in rows), wds.to_tuple('x', 'y'), wds.batched(4))
        return wds.WebLoader(data, batch_size=None).with_length(3)   # for schedules
    return Learner(torch.nn.Linear(4, 2), DataLoaders(loader(), loader()), F.cross_entropy,
                   torch.optim.SGD, 0.1, subs)


# lines or arguments beyond `Learner(model, dls, loss, optimizer, lr)`; the formats of its export,
# or why it can be no file
BOTH = 'pt2','onnx'
CLIENTS = {
    'BERT': (text, 0, ['pt2']), 'BERT in ONNX': (text, 0, ['onnx']),
    'question answering': (questions, 0, ['pt2']), 'masked LM': (masked, 0, ['safetensors']),
    'GPT-2': (words, 0, ['pt2']), 'T5': (sequences, 0, ['pt2']),
    'ViT': (vision, 0, ['pt2']), 'LoRA': (lora, 0, ['pt2']), 'timm': (pictures, 0, BOTH),
    'segmentation': (segmentation, 0, ['pt2']),
    'detection': (detection, 0, 'the input x of the model is a tuple'),
    'graph': (graph, 0, 'the input x of the model is a DataBatch'),
    'VAE': (autoencoder, 0, ['pt2']), 'diffusion': (diffusion, 0, 'draws random numbers'),
    'SimCLR': (contrastive, 1, BOTH), 'triplets': (triplets, 1, ['pt2']),
    'REINFORCE': (reinforce, 0, ['pt2']), 'webdataset': (webdataset, 1, ['pt2'])}
SLOW = {'BERT in ONNX', 'question answering'}   # make test-faults
DONE = {}


def same_in_a_file(learn, path, any_length=False):
    "The file's predictions, of three rows and of texts of another length, are the learner's."
    file = load_predictor(learn.export(path, prepare=None, any_length=any_length), learn.model)
    for batch in [*learn.dls.valid][:1 + any_length]:
        batch = few_rows(batch, learn.n_inp, 3)
        given = split_batch(batch, learn.n_inp)[0]
        found = tensors_of(file.scores(given[0] if len(file.inputs) == 1 and isinstance(
            given, tuple) else given))
        for name,wanted in tensors_of(learn.get_preds([batch])[0]).items():
            assert torch.allclose(found[name], wanted, atol=1e-4)


def weights(learn): return [t.clone() for t in learn.model.state_dict().values()]
def same(a, b): return len(a) == len(b) and all(map(torch.equal, a, b))


@pytest.mark.parametrize('kind', [pytest.param(
    kind, marks=[pytest.mark.faults]*(kind in SLOW)) for kind in CLIENTS])
def test_every_kind_of_client_through_every_verb(kind, tmp_path):
    make,lines,formats = CLIENTS[kind]
    states = []
    def keep(learn):
        if learn.training and learn.epoch == 1 and learn.iter == 0: states.append(
            learn.state_dict())
    whole = make()
    whole.on('after_batch', keep, order=SAVE+1)
    torch.manual_seed(1)
    whole.fit(2)
    done = ['fit']
    assert whole.n_samples > 0 and all(t.isfinite().all() for t in weights(whole))
    part = make()
    part.fit(2, resume=states[0])
    assert same(weights(part), weights(whole))
    done.append('resume')

    before = weights(part)
    row = part.validate()
    assert row == part.validate() or kind in ('diffusion', 'REINFORCE')    # these draw
    found = part.get_preds()[0]
    assert len(first_of(found)) >= 8
    assert len(part.lr_find(n_batches=10, repeats=1, tries=0).lrs)
    assert same(weights(part), before)
    done += ['validate', 'get_preds', 'lr_find']

    part.fit_one_cycle(1, 1e-3, subs=EMAS(0.9))
    assert not same(weights(part), before)
    done += ['one cycle', 'EMA']
    part.save(tmp_path/'model.safetensors')
    again = make()
    again.load(tmp_path/'model.safetensors')
    assert same(weights(again), weights(part))
    done.append('save/load')
    if isinstance(formats, str):
        with pytest.raises(ValueError, match=formats): part.export(tmp_path/'model.pt2')
        assert not (tmp_path/'model.pt2').exists()
    else:
        if 'onnx' in formats: needs('onnxscript'),needs('onnxruntime')
        for ending in formats: same_in_a_file(part, tmp_path/f'model.{ending}', kind in ('BERT', 'BERT in ONNX'))
        done.append('export')
    DONE[kind] = lines,done


def test_table_of_the_kinds(capsys):
    "What was tried above; a kind whose library is missing has no line."
    with capsys.disabled():
        print(f"\n{'kind':20} lines  tried")
        for kind,(lines,done) in DONE.items(): print(f"{kind:20} {lines:5}  {', '.join(done)}")
    assert all(len(done) >= 8 and lines <= 3 for lines,done in DONE.values())


def test_a_run_with_adapters_alone_in_its_checkpoints_resumes_exactly(tmp_path):
    "Kills at four moments; the base is in no checkpoint, and another base is refused."
    needs('peft')
    assert check_resume(lora, at=[('after_batch', 2), ('after_step', 3), ('before_validate', 1),
                                  ('after_full_epoch', 1)], trainable=True)
    learn = lora()
    learn.fit(1, subs=CheckpointS(tmp_path/'run', trainable=True))
    names = {*resume(tmp_path/'run')['objects']['model']}
    assert names and all('lora_' in name or 'modules_to_save' in name for name in names)
    size = sum(file.stat().st_size for file in (tmp_path/'run').rglob('*.safetensors'))
    trained = sum(p.numel()*p.element_size() for p in learn.model.parameters() if p.requires_grad)
    assert size < 4*trained + 20_000     # weights, two moments, generators
    other = lora()
    with torch.no_grad(): next(other.model.parameters()).add_(1)
    with pytest.raises(ValueError, match='frozen rest differs here'):
        other.fit(2, subs=CheckpointS(tmp_path/'run', trainable=True), resume=True)
    average = EMAS(0.9)
    learn.fit(1, subs=average)
    assert all('lora_' in name or 'modules_to_save' in name for name in average.ema)
    learn.save(tmp_path/'adapter.safetensors', trainable=True)
    again = lora()
    assert again.load(tmp_path/'adapter.safetensors') == []
    assert same(weights(again), weights(learn))


def test_adapters_in_the_format_of_peft(tmp_path):
    "PEFT reads what we write, we read what PEFT writes, and what it has no place for is refused."
    peft = needs('peft')
    def load(path): return peft.PeftModel.from_pretrained(small('classifier')[0], path)
    learn,folder = lora(),tmp_path/'new'/'adapter-1.5'
    learn.fit(1)
    learn.save(folder, trainable=True)
    assert {'adapter_config.json', 'adapter_model.safetensors'} < {*os.listdir(folder)}
    assert same(weights(load(folder)), weights(learn.model))     # its new head, too
    (folder/'README.md').write_text('edited')
    learn.model = torch.nn.DataParallel(learn.model)
    learn.fit(1)
    learn.save(folder, trainable=True)
    assert same(weights(load(folder)), weights(learn.model.module))
    assert (folder/'README.md').read_text() == 'edited'

    again = lora()
    assert again.load(folder) == [] and same(weights(again), weights(learn.model.module))
    learn.model.module.save_pretrained(tmp_path/'theirs')
    again = lora()
    assert again.load(tmp_path/'theirs') == [] and same(weights(again), weights(learn.model.module))
    before = weights(again)
    again.model.peft_config['default'].lora_alpha = 3
    with pytest.raises(ValueError, match='lora_alpha 8, and the adapter of the model has 3'):
        again.load(folder)
    name = folder/'adapter_model.safetensors'
    name.write_bytes(name.read_bytes()[:-9])
    with pytest.raises(ValueError, match='adapter_model.safetensors has'): lora().load(folder)
    with pytest.raises(TypeError, match='make it with peft.get_peft_model'): text().load(folder)
    assert same(weights(again), before)

    learn = lora()
    learn.model.base_model.model.bert.embeddings.word_embeddings.weight.requires_grad_(True)
    with pytest.raises(ValueError, match='training changes .*word_embeddings.weight, too'):
        learn.save(tmp_path/'less', trainable=True)
    assert not (tmp_path/'less').exists()
    learn.save(tmp_path/'less.safetensors', trainable=True)
    with pytest.raises(ValueError, match='is a file'):
        lora().save(folder/'README.md', trainable=True)


def test_the_average_of_adapters_is_what_peft_reads(tmp_path):
    "In the events where an average stands for the model, it is saved; the second adapter, too."
    peft = needs('peft')
    learn,average = lora(),EMAS(0.5)
    save = lambda learn: learn.save(tmp_path/'mean', trainable=True)
    learn.on('after_full_epoch', save, order=SAVE)
    learn.fit(1, subs=average)
    mean = peft.PeftModel.from_pretrained(small('classifier')[0], tmp_path/'mean')
    named = dict(mean.named_parameters())
    assert average.ema and all(torch.equal(named[k], v) for k,v in average.ema.items())
    learn.model.add_adapter('second', peft.LoraConfig(task_type='SEQ_CLS', r=3,
                                                      target_modules=['query']))
    learn.model.set_adapter('second')
    learn.save(tmp_path/'both', trainable=True)
    assert (tmp_path/'both'/'second'/'adapter_model.safetensors').exists()
    with torch.no_grad():
        for name,p in learn.model.named_parameters():
            if '.second' in name: p.zero_()
    assert learn.load(tmp_path/'both'/'second') == []
    assert any(p.any() for name,p in learn.model.named_parameters() if 'lora_A.second' in name)


class Normed(torch.nn.Sequential):
    def __init__(self):
        linear = torch.nn.Linear
        super().__init__(linear(8, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), linear(6, 3))


def normed(*subs, keep=None):
    "An adapter on a base whose batch norm goes on counting, as frozen weights are no frozen buffers."
    peft = needs('peft')
    torch.manual_seed(0)
    model = peft.get_peft_model(Normed(), peft.LoraConfig(r=2, target_modules=['0'],
                                                          modules_to_save=keep))
    dls = pieces(lambda i: (torch.randn(8)+3, i%3), n=3, shuffle=True)
    return Learner(model, dls, F.cross_entropy, torch.optim.Adam, 0.01, subs)


def test_statistics_of_a_frozen_base_are_kept_or_the_adapter_is_refused(tmp_path):
    needs('peft')
    assert check_resume(normed, at=[('after_batch', 2), ('before_validate', 1)], trainable=True)
    for keep,where in ((None, 'file.safetensors'), (['1'], 'folder')):
        learn = normed(keep=keep)
        before = learn.model.state_dict()['base_model.model.3.weight'].clone()
        learn.fit(1)
        learn.save(tmp_path/where, trainable=True)
        again = normed(keep=keep)
        assert again.load(tmp_path/where) == [] and same(weights(again), weights(learn))
        assert torch.equal(learn.model.state_dict()['base_model.model.3.weight'], before)
    with pytest.raises(ValueError, match='training changes base_model.model.1.running_mean, too'):
        normed().save(tmp_path/'other', trainable=True)
    assert not (tmp_path/'other').exists()


def test_boxes_and_graphs_are_counted_as_they_are():
    "Rows of a detection model and of graphs, by hand."
    learn = detection(MetricsS(overlap, show=False))
    rows = []
    learn.on('after_epoch', lambda learn: rows.append(dict(learn.row)), order=SAVE)
    learn.fit(1)
    assert {'loss', 'loss_box', 'loss_object'} < {*rows[0]} and 'overlap' not in rows[0]
    assert rows[0]['loss'] == pytest.approx(rows[0]['loss_box'] + rows[0]['loss_object'], rel=1e-6)
    found,targets = learn.get_preds()
    assert len(found) == len(targets) == 16 and learn.n_samples == 16
    assert 'loss' not in rows[1]
    assert rows[1]['overlap'] == pytest.approx(overlap(found, targets).item(), rel=1e-5)
    learn = graph(MetricsS(accuracy, show=False))
    learn.fit(1)
    preds,targets = learn.get_preds()
    right = (preds.argmax(1) == targets).float().mean().item()
    assert learn.n_samples == len(preds) == 10      # batches of 4, 4 and 2 graphs
    assert learn.validate()['accuracy'] == pytest.approx(right)


def say(rows): return [' '.join(map(str, row if isinstance(row, list) else row.tolist()))
                       for row in rows]
def exact(generated, wanted): return sum(map(str.__eq__, generated, wanted))/len(wanted)
def length(generated, wanted): return dict(words=sum(len(t.split()) for t in generated)/len(wanted))


def test_texts_that_a_seq2seq_model_generates_are_measured(tmp_path):
    "The row by hand, with the average that is validated; the loss stays; a run resumes exactly."
    options = dict(max_new_tokens=4, do_sample=False)
    def make(*subs): return learner('T5', MetricsS(show=False), GenerateS(say, exact, length,
                                    **options), *subs)
    learn = make(EMAS(0.5), recorder := RecorderS())
    learn.fit(2, subs=ValidateS(2))
    rows = [row for row in recorder.history.rows if row['mode'] == 'valid']
    assert [row['step'] for row in rows] == [2, 3, 4, 6]
    said,wanted = [],[]
    for batch in learn.dls.valid:
        inputs = {k: v for k,v in batch.items() if k != 'labels'}
        said += say(learn.model.eval().generate(**inputs, **options))
        wanted += say(batch['labels'])
    assert learn.subs['GenerateS'].generated == said
    assert rows[-1]['words'] == pytest.approx(length(said, wanted)['words'])
    assert rows[-1]['exact'] == pytest.approx(exact(said, wanted))
    assert rows[-1]['loss'] == pytest.approx(learn.validate()['loss'], rel=1e-5)
    plain = learner('T5', MetricsS(show=False), EMAS(0.5))
    plain.fit(2)
    assert same(weights(plain), weights(learn))
    check_resume(lambda: make(RecorderS()), 2, at=[('after_step', 3), ('after_validate', 1)])


def test_a_model_without_an_encoder_goes_on_from_a_prompt():
    prompt = lambda batch: dict(input_ids=batch['input_ids'][:, :3],
                                attention_mask=batch['attention_mask'][:, :3])
    generate = GenerateS(say, exact, prompt=prompt, max_new_tokens=2, do_sample=False)
    learn = learner('GPT-2', MetricsS(show=False), generate)
    learn.fit(1)
    start = learn.dls.valid[0]['input_ids'][:1, :3]
    found = learn.model.eval().generate(input_ids=start, attention_mask=torch.ones_like(start),
                                        max_new_tokens=2, do_sample=False)
    assert generate.generated[0] == say(found[:, 3:])[0] and 'exact' in learn.row
