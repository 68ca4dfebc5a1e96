// Choosing tokens on the GPU: what runtime/sample.c and select.c do, in the same order (bias, mask, penalties, top-k, top-p,
// min-p, temperature, draw in order of id), with sums in float32. Sections start with `//: name`; sampler.js puts a kernel
// together with those it needs, after constants S_… for the words of inpage_sequence.
//
// A row of logits is read in parts of shape.part tokens, one a workgroup, so that all of the GPU takes part. Every sum runs
// in one fixed order, whatever else is in the batch.
//
// work, for each row: 4 words of statistics for each part (highest key, its id, runner-up's key, sum of exp(x - highest));
// a word of weight for each part; 4 words of the cut (key, end, highest key, whether to draw); the searches before the last
// two turns.

//: numbers
struct Shape { vocab: u32, part: u32, parts: u32, masks: u32, turn: u32 }
const NONE = 0xffffffffu;

// A number that rises with the logit; 0 for NaN and -inf, which never stay; +inf counts as the largest float. Bits, since
// shaders may assume that there is no NaN.
fn key_of(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u || bits == 0xff800000u) { return 0u; }
  if (magnitude == 0u) { return 0x80000000u; }
  if (magnitude == 0x7f800000u) { return 0xff7fffffu; }
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

// exp(x) for x <= 0 to about 1e-7 relative, 0 below -87: numerics.h's inpage_exp4.
fn exp_of(x: f32) -> f32 {
  if (!(x > -87.0)) { return 0.0; }
  let n = round(x * 1.44269504);
  let r = (x - n * 0.693359375) + n * 2.12194440e-4;
  var p = r * 1.9875691500e-4 + 1.3981999507e-3;
  p = p * r + 8.3334519073e-3;
  p = p * r + 4.1665795894e-2;
  p = p * r + 1.6666665459e-1;
  p = p * r + 5.0000001201e-1;
  p = p * (r * r) + r + 1.0;
  return bitcast<f32>(bitcast<i32>(p) + (i32(n) << 23u));
}

fn weight_of(key: u32, top: u32, temperature: f32) -> f32 {
  if (key == 0u) { return 0.0; }
  return exp_of((value_of(key) - value_of(top)) / temperature);
}

//: groups
struct Top { key: u32, id: u32, second: u32 }
var<workgroup> floats: array<f32, 256>;
var<workgroup> tops: array<Top, 256>;

// The sum over the workgroup's 256 invocations.
fn sum_all(t: u32, value: f32) -> f32 {
  workgroupBarrier();
  floats[t] = value;
  workgroupBarrier();
  var sum = 0.0;
  if (t < 16u) {
    for (var i = 0u; i < 16u; i++) { sum += floats[t * 16u + i]; }
  }
  workgroupBarrier();
  if (t < 16u) { floats[t] = sum; }
  workgroupBarrier();
  sum = 0.0;
  if (t == 0u) {
    for (var i = 0u; i < 16u; i++) { sum += floats[i]; }
  }
  workgroupBarrier();
  if (t == 0u) { floats[0] = sum; }
  return workgroupUniformLoad(&floats[0]);
}

fn better(a: Top, b: Top) -> Top {
  let swap = b.key > a.key || (b.key == a.key && b.id < a.id);
  let winner = select(a.key, b.key, swap);
  let loser = select(b.key, a.key, swap);
  let second = select(a.second, b.second, swap);
  return Top(winner, select(a.id, b.id, swap), max(second, loser));
}

// The best of the workgroup: the lowest id of the highest key, and the key after it.
fn best_of(t: u32, own: Top) -> Top {
  workgroupBarrier();
  tops[t] = own;
  for (var width = 128u; width > 0u; width >>= 1u) {
    workgroupBarrier();
    if (t < width) { tops[t] = better(tops[t], tops[t + width]); }
  }
  return workgroupUniformLoad(&tops[0]);
}

//: rows
fn row_at(row: u32) -> u32 { return row * (5u * shape.parts + 4u + 2u * SEARCH_WORDS); }

// Highest key, its id and the runner-up of a whole row, from its parts. shape.parts <= 256.
fn top_of(row: u32, t: u32) -> Top {
  var own = Top(0u, NONE, 0u);
  if (t < shape.parts) {
    let at = row_at(row) + 4u * t;
    own = Top(work[at], work[at + 1u], work[at + 2u]);
  }
  return best_of(t, own);
}

// Sum of exp(x - highest) of a whole row.
fn sum_of(row: u32, t: u32, top: u32) -> f32 {
  var own = 0.0;
  if (t < shape.parts) {
    let at = row_at(row) + 4u * t;
    own = bitcast<f32>(work[at + 3u]) * weight_of(work[at], top, 1.0);
  }
  return sum_all(t, own);
}

//: adjust
@group(0) @binding(0) var<storage, read_write> logits: array<u32>;
@group(0) @binding(1) var<storage, read> sequences: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read> tables: array<u32>;
@group(0) @binding(4) var<uniform> shape: Shape;

fn change(at: u32, value: f32) {
  logits[at] = bitcast<u32>(value);
}

// Bias, mask and penalties, in place. One workgroup a row; equal ids are taken together by the first of them.
@compute @workgroup_size(256)
fn adjust(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let s = rows[group.x].x * S_WORDS;
  let row = group.x * shape.vocab;
  let n_bias = sequences[s + S_N_BIAS];
  let bias = sequences[s + S_BIAS] * 2u;
  for (var i = t; i < n_bias; i += 256u) {
    let id = tables[bias + 2u * i];
    var before = false;
    var value = 0.0;
    for (var k = 0u; k < n_bias; k++) {
      if (tables[bias + 2u * k] != id) { continue; }
      before = before || k < i;
      value += bitcast<f32>(tables[bias + 2u * k + 1u]);
    }
    if (before || id >= shape.vocab || key_of(logits[row + id]) == 0u) { continue; }
    change(row + id, bitcast<f32>(logits[row + id]) + value);
  }
  storageBarrier();
  let mask = sequences[s + S_MASK];
  if (mask != NONE) {
    for (var id = t; id < shape.vocab; id += 256u) {
      if (((tables[shape.masks + mask + (id >> 5u)] >> (id & 31u)) & 1u) == 0u) { logits[row + id] = 0xff800000u; }
    }
  }
  storageBarrier();
  let repetition = bitcast<f32>(sequences[s + S_REPETITION_PENALTY]);
  let presence = bitcast<f32>(sequences[s + S_PRESENCE_PENALTY]);
  let frequency = bitcast<f32>(sequences[s + S_FREQUENCY_PENALTY]);
  let n = min(sequences[s + S_N_HISTORY], HISTORY);
  if (t >= n || (repetition == 1.0 && presence == 0.0 && frequency == 0.0)) { return; }
  let id = sequences[s + S_HISTORY + t];
  var count = 0.0;
  for (var k = 0u; k < n; k++) {
    if (sequences[s + S_HISTORY + k] != id) { continue; }
    if (k < t) { return; }
    count += 1.0;
  }
  if (id >= shape.vocab || key_of(logits[row + id]) == 0u) { return; }
  var x = bitcast<f32>(logits[row + id]);
  x = select(x / repetition, x * repetition, x <= 0.0);
  change(row + id, x - (count * frequency + presence));
}

//: stats
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read_write> bins: array<u32>;
@group(0) @binding(3) var<uniform> shape: Shape;

// Statistics of one part of one row, whose histograms become clear.
@compute @workgroup_size(256)
fn stats(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = group.y * shape.vocab;
  let begin = group.x * shape.part;
  let end = min(begin + shape.part, shape.vocab);
  var own = Top(0u, NONE, 0u);
  for (var id = begin + t; id < end; id += 256u) {
    let key = key_of(logits[row + id]);
    if (key > own.key) {
      own = Top(key, id, own.key);
    } else {
      own.second = max(own.second, key);
    }
  }
  let top = best_of(t, own);
  var sum = 0.0;
  for (var id = begin + t; id < end; id += 256u) { sum += weight_of(key_of(logits[row + id]), top.key, 1.0); }
  sum = sum_all(t, sum);
  if (t == 0u) {
    let at = row_at(group.y) + 4u * group.x;
    work[at] = top.key;
    work[at + 1u] = top.id;
    work[at + 2u] = top.second;
    work[at + 3u] = bitcast<u32>(sum);
  }
  let first = group.y * 6u * BINS;
  for (var at = group.x * 256u + t; at < 6u * BINS; at += shape.parts * 256u) { bins[first + at] = 0u; }
}

//: merge
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> work: array<u32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> results: array<u32>;
@group(0) @binding(4) var<uniform> shape: Shape;

// Statistics of a whole row, and the logit of its target: 5 of 8 words.
@compute @workgroup_size(256)
fn merge(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let top = top_of(group.x, t);
  let sum = sum_of(group.x, t, top.key);
  if (t == 0u) {
    let at = 8u * group.x;
    let id = targets[group.x];
    results[at] = top.key;
    results[at + 1u] = top.id;
    results[at + 2u] = top.second;
    results[at + 3u] = bitcast<u32>(sum);
    results[at + 4u] = logits[group.x * shape.vocab + min(id, shape.vocab - 1u)];
  }
}
