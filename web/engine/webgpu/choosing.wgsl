// The second half of sampling.wgsl: what top-k, top-p and min-p leave, and the draw among it. All three keep a prefix of the
// tokens in order of (logit falling, id rising), so what stays is one cut: found, without sorting the vocabulary, by asking
// how much lies above sixteen thresholds at once, and then above sixteen between two of those.

//: cuts
// What a filter leaves: keys above `key`, and equal to it those with an id below `end`.
struct Cut { key: u32, end: u32 }

fn stays(key: u32, id: u32, cut: Cut) -> bool {
  return key != 0u && (key > cut.key || (key == cut.key && id < cut.end));
}

//: cut
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read> sequences: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<vec4u>;
@group(0) @binding(4) var<uniform> shape: Shape;
const PROBES = 16u;
var<workgroup> counts: array<atomic<u32>, PROBES>;
var<workgroup> amounts: array<f32, PROBES>;
var<workgroup> halves: array<f32, 2048>;
var<workgroup> found: Found;
// The highest probe that reaches a target: its index (NONE if none does), how many stay above it and above the next one,
// and the amount above the next one.
struct Found { probe: u32, count: u32, next_count: u32, next_amount: f32 }

struct Search { row: u32, top: u32, by_mass: bool, cut: Cut }

// One pass over the row: which of the probes low + i * step < high is the highest that reaches `target`? `above`: count and
// amount of what lies at high and above.
fn probe(s: Search, t: u32, low: u32, step: u32, high: u32, target_amount: f32, above_count: u32, above_amount: f32) -> Found {
  var own_counts: array<u32, PROBES>;
  var own: array<f32, PROBES>;
  let row = s.row * shape.vocab;
  for (var id = t; id < shape.vocab; id += 256u) {
    let key = key_of(logits[row + id]);
    if (key < low || key >= high || !stays(key, id, s.cut)) { continue; }
    let amount = select(1.0, weight_of(key, s.top, 1.0), s.by_mass);
    let reached = (key - low) / step;
    for (var i = 0u; i < PROBES; i++) {
      own_counts[i] += select(0u, 1u, i <= reached);
      own[i] += select(0.0, amount, i <= reached);
    }
  }
  if (t < PROBES) { atomicStore(&counts[t], above_count); }
  workgroupBarrier();
  for (var i = 0u; i < PROBES; i++) {
    if (own_counts[i] > 0u) { atomicAdd(&counts[i], own_counts[i]); }
    if (t >= 128u) { halves[i * 128u + t - 128u] = own[i]; }
  }
  workgroupBarrier();
  if (t < 128u) {
    for (var i = 0u; i < PROBES; i++) { halves[i * 128u + t] += own[i]; }
  }
  workgroupBarrier();
  if (t < PROBES) {
    var sum = above_amount;
    for (var i = 0u; i < 128u; i++) { sum += halves[t * 128u + i]; }
    amounts[t] = sum;
  }
  workgroupBarrier();
  if (t == 0u) {
    found = Found(NONE, 0u, above_count, above_amount);
    for (var i = 0u; i < PROBES; i++) {
      let count = atomicLoad(&counts[i]);
      if (low + i * step >= high || count == 0u || amounts[i] < target_amount) { break; }
      found.probe = i;
      found.count = count;
    }
    let next = found.probe + 1u; // NONE + 1 is 0: what lies at low and above
    if (next < PROBES && low + next * step < high) {
      found.next_count = atomicLoad(&counts[next]);
      found.next_amount = amounts[next];
    }
  }
  return workgroupUniformLoad(&found);
}

// Among what stays with exactly this key: the end of the first `wanted` ids.
fn end_of_ties(s: Search, t: u32, key: u32, wanted: u32) -> u32 {
  var low = 0u; // fewer than wanted ids lie below
  var high = shape.vocab;
  while (high - low > 1u) {
    let middle = low + (high - low) / 2u;
    var own = 0.0;
    for (var id = t; id < middle; id += 256u) {
      if (key_of(logits[s.row * shape.vocab + id]) == key && stays(key, id, s.cut)) { own += 1.0; }
    }
    if (u32(sum_all(t, own)) >= wanted) {
      high = middle;
    } else {
      low = middle;
    }
  }
  return high;
}

// The cut that leaves the shortest prefix, in order of (key falling, id rising), whose amount reaches the target; the same
// cut where all together do not.
fn descend(s: Search, t: u32, target_amount: f32) -> Cut {
  var low = max(s.cut.key, 1u);
  var high = s.top + 1u;
  var above_count = 0u;
  var above_amount = 0.0;
  loop {
    let step = max(1u, (high - low) / PROBES + select(0u, 1u, (high - low) % PROBES != 0u));
    let hit = probe(s, t, low, step, high, target_amount, above_count, above_amount);
    if (hit.probe == NONE) { return s.cut; } // only at first: all together do not reach it
    low += hit.probe * step;
    high = min(high, low + step);
    above_count = hit.next_count;
    above_amount = hit.next_amount;
    let between = hit.count - above_count;
    if (between == 1u || (!s.by_mass && f32(hit.count) == target_amount)) { break; }
    if (high - low == 1u) {
      let each = select(1.0, weight_of(low, s.top, 1.0), s.by_mass);
      let wanted = clamp(u32(ceil((target_amount - above_amount) / max(each, 1e-38))), 1u, between);
      if (wanted < between) { return Cut(low, end_of_ties(s, t, low, wanted)); }
      break;
    }
  }
  if (low <= s.cut.key) { return s.cut; }
  return Cut(low - 1u, 0u);
}

// Top-k, top-p and min-p: what of the row stays. One workgroup a row.
@compute @workgroup_size(256)
fn cut(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = group.x;
  let s = rows[row].x * S_WORDS;
  let temperature = bitcast<f32>(sequences[s + S_TEMPERATURE]);
  let k = sequences[s + S_TOP_K];
  let top_p = bitcast<f32>(sequences[s + S_TOP_P]);
  let min_p = bitcast<f32>(sequences[s + S_MIN_P]);
  let top = top_of(row, t);
  let total = sum_of(row, t, top.key);
  let draws = temperature > 0.0 && top.key != 0u;
  var search = Search(row, top.key, false, Cut(0u, 0u));
  if (draws && k > 0u && k < shape.vocab) { search.cut = descend(search, t, f32(k)); }
  if (draws && top_p < 1.0) {
    search.by_mass = true;
    var mass = total;
    if (search.cut.key > 0u) {
      var own = 0.0;
      for (var id = t; id < shape.vocab; id += 256u) {
        let key = key_of(logits[row * shape.vocab + id]);
        if (stays(key, id, search.cut)) { own += weight_of(key, top.key, 1.0); }
      }
      mass = sum_all(t, own);
    }
    search.cut = descend(search, t, max(top_p, 0.0) * mass);
  }
  if (draws && min_p > 0.0) {
    let highest = value_of(top.key);
    let least = key_of(bitcast<u32>(select(highest, min(highest, highest + log(min_p)), min_p < 1.0)));
    let below = max(least, 1u) - 1u;
    if (below > search.cut.key || (below == search.cut.key && search.cut.end > 0u)) { search.cut = Cut(below, 0u); }
  }
  if (t == 0u) {
    let at = row_at(row) + 5u * shape.parts;
    work[at] = search.cut.key;
    work[at + 1u] = search.cut.end;
    work[at + 2u] = top.key;
    work[at + 3u] = select(0u, 1u, draws);
  }
}

//: weigh
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read> sequences: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<vec4u>;
@group(0) @binding(4) var<uniform> shape: Shape;

// The weight, at the row's temperature, of what stays in one part.
@compute @workgroup_size(256)
fn weigh(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = group.y;
  let at = row_at(row) + 5u * shape.parts;
  let keeps = Cut(work[at], work[at + 1u]);
  let top = work[at + 2u];
  let temperature = bitcast<f32>(sequences[rows[row].x * S_WORDS + S_TEMPERATURE]);
  let begin = group.x * shape.part;
  let end = min(begin + shape.part, shape.vocab);
  var own = 0.0;
  if (work[at + 3u] == 1u) {
    for (var id = begin + t; id < end; id += 256u) {
      let key = key_of(logits[row * shape.vocab + id]);
      if (stays(key, id, keeps)) { own += weight_of(key, top, temperature); }
    }
  }
  let sum = sum_all(t, own);
  if (t == 0u) { work[row_at(row) + 4u * shape.parts + group.x] = bitcast<u32>(sum); }
}

//: draw
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> work: array<u32>;
@group(0) @binding(2) var<storage, read_write> sequences: array<u32>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> token_ids: array<u32>;
@group(0) @binding(6) var<storage, read_write> positions: array<u32>;
@group(0) @binding(7) var<uniform> shape: Shape;
var<workgroup> state: u32; // where the row's sequence starts
var<workgroup> temperature: f32;
// Where the draw fell: the part, the weight before it, the weight to be exceeded.
struct Place { part: u32, before: f32, aim: f32 }
var<workgroup> place: Place;

// Philox4x32-10 (philox.h): the first word for a key and a counter.
fn multiply(a: u32, b: u32) -> vec2u { // high, low
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let cross = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return vec2u((a >> 16u) * (b >> 16u) + (middle >> 16u) + (cross >> 16u), a * b);
}

fn philox(key: vec2u, position: u32) -> u32 {
  var k = key;
  var c = vec4u(position, 0u, 0u, 0u);
  for (var round = 0; round < 10; round++) {
    let p0 = multiply(0xD2511F53u, c.x);
    let p1 = multiply(0xCD9E8D57u, c.z);
    c = vec4u(p1.x ^ c.y ^ k.x, p1.y, p0.x ^ c.w ^ k.y, p0.y);
    k += vec2u(0x9E3779B9u, 0xBB67AE85u);
  }
  return c.x;
}

// The first number of the generator, in [0, 1), for the token that gets this position.
fn uniform_at(s: u32, position: u32) -> f32 {
  let bits = philox(vec2u(sequences[s + S_SEED], sequences[s + S_SEED + 1u]), position);
  return min(f32(bits) * 2.3283064365386963e-10, 0.99999994);
}

// Puts the chosen token where the next step reads it, and what goes with it. Finished sequences feed what they fed, again.
fn commit(row: u32, n_rows: u32, s: u32, token: u32) {
  if (rows[row].z == 0u) { // a single choice: only told
    tokens[row] = token;
    tokens[n_rows + row] = logits[row * shape.vocab + token];
    return;
  }
  let out = rows[row].y * n_rows + row;
  rows[row].y += 1u;
  if (sequences[s + S_FINISHED] != 0u) {
    tokens[out] = NONE;
    return;
  }
  tokens[out] = token;
  let pushed = sequences[s + S_N_HISTORY];
  sequences[s + S_HISTORY + pushed % HISTORY] = token;
  sequences[s + S_N_HISTORY] = pushed + 1u;
  let position = sequences[s + S_POSITION] + 1u;
  let remaining = sequences[s + S_REMAINING] - 1u;
  sequences[s + S_TOKEN] = token;
  sequences[s + S_POSITION] = position;
  sequences[s + S_REMAINING] = remaining;
  var finished = 0u;
  for (var i = 0u; i < sequences[s + S_N_STOP]; i++) {
    if (sequences[s + S_STOP + i] == token) { finished = 1u; }
  }
  if (finished == 0u && remaining == 0u) { finished = 2u; }
  if (finished == 0u && position >= sequences[s + S_RESERVED]) { finished = 3u; }
  sequences[s + S_FINISHED] = finished;
  if (finished == 0u) {
    token_ids[row] = token;
    positions[row] = position;
  }
}

// The first token, in order of id, whose cumulative weight exceeds the generator's share of all; greedy: the best.
@compute @workgroup_size(256)
fn draw(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = group.x;
  let top = top_of(row, t);
  if (t == 0u) {
    state = rows[row].x * S_WORDS;
    temperature = bitcast<f32>(sequences[state + S_TEMPERATURE]);
  }
  let s = workgroupUniformLoad(&state);
  let heat = workgroupUniformLoad(&temperature);
  var chosen = select(top.id, 0u, top.key == 0u);
  if (heat > 0.0 && top.key != 0u) {
    let at = row_at(row) + 5u * shape.parts;
    let keeps = Cut(work[at], work[at + 1u]);
    floats[t] = 0.0;
    if (t < shape.parts) { floats[t] = bitcast<f32>(work[row_at(row) + 4u * shape.parts + t]); }
    workgroupBarrier();
    if (t == 0u) {
      var total = 0.0;
      for (var i = 0u; i < shape.parts; i++) { total += floats[i]; }
      place.aim = uniform_at(s, sequences[s + S_POSITION] + 1u) * total;
      var sum = 0.0;
      for (var i = 0u; i < shape.parts; i++) {
        if (floats[i] == 0.0) { continue; }
        place.part = i;
        place.before = sum;
        sum += floats[i];
        if (sum > place.aim) { break; }
      }
    }
    let where_to = workgroupUniformLoad(&place);
    let run = shape.part / 256u; // tokens of this invocation, one behind the other
    let first = where_to.part * shape.part + t * run;
    var own = 0.0;
    for (var id = first; id < min(first + run, shape.vocab); id++) {
      let key = key_of(logits[row * shape.vocab + id]);
      if (stays(key, id, keeps)) { own += weight_of(key, top.key, heat); }
    }
    floats[t] = own;
    workgroupBarrier();
    if (t == 0u) {
      var sum = where_to.before;
      var taken = sum;
      var begin = 0u;
      // Rounding can hide the last bit of what all together reach: then it is the last one.
      for (var i = 0u; i < 256u; i++) {
        if (floats[i] == 0.0) { continue; }
        begin = i;
        taken = sum;
        sum += floats[i];
        if (sum > where_to.aim) { break; }
      }
      let start = where_to.part * shape.part + begin * run;
      for (var id = start; id < min(start + run, shape.vocab); id++) {
        let key = key_of(logits[row * shape.vocab + id]);
        if (!stays(key, id, keeps)) { continue; }
        chosen = id;
        taken += weight_of(key, top.key, heat);
        if (taken > where_to.aim) { break; }
      }
    }
  }
  if (t == 0u) { commit(row, groups.x, s, chosen); }
}
