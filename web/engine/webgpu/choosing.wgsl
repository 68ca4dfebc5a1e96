// The second half of sampling.wgsl: what top-k, top-p and min-p leave, and the draw among it. All three keep a prefix of the
// tokens in order of (logit falling, id rising), so what stays is one cut, found without sorting the vocabulary: top-k and
// top-p each search it in a few dispatches over all parts of the row.

//: cuts
// What a filter leaves: keys above `key`, and equal to it those with an id below `end`.
struct Cut { key: u32, end: u32 }

fn stays(key: u32, id: u32, cut: Cut) -> bool {
  return key != 0u && (key > cut.key || (key == cut.key && id < cut.end));
}

// The product's low and high word.
fn product(a: u32, b: u32) -> vec2u {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let cross = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return vec2u(a * b, (a >> 16u) * (b >> 16u) + (middle >> 16u) + (cross >> 16u));
}

//: searches
// The search for a cut, in turns of a dispatch each. A turn divides a range of candidates into BINS bins in their order and
// adds up what lies in each: tokens for top-k, weights for top-p. The next one keeps the bin with which the amount reaches
// the goal. The first KEY_TURNS divide the keys, which leaves one; the others, among the tokens that have it, the ids.
// Amounts are whole numbers of 64 bits (low word, high word): no order of adding them changes the sum.
const RUN = (BINS + 255u) / 256u; // bins of an invocation

// Of a row before a turn: candidates that stay by `cut` and lie less than `size` behind `first`, a key and later an id;
// `above`: the amount before them. A size of 0: all together do not reach the goal, so the search changes no cut.
struct Search { first: u32, size: u32, key: u32, cut: Cut, above: vec2u, goal: vec2u }
struct Found { bin: u32, above: vec2u }
// top-k or 0, top-p or 1: what a row asks for that is drawn.
struct Asked { k: u32, share: f32, temperature: f32 }
var<workgroup> sums: array<vec2u, 272>;
var<workgroup> found: Found;
var<workgroup> held: Search;
var<workgroup> highest: atomic<u32>;

fn asked(row: u32) -> Asked {
  let s = rows[row].x * S_WORDS;
  let temperature = bitcast<f32>(sequences[s + S_TEMPERATURE]);
  let k = sequences[s + S_TOP_K];
  let draws = temperature > 0.0;
  let share = max(bitcast<f32>(sequences[s + S_TOP_P]), 0.0);
  return Asked(select(0u, k, draws && k < shape.vocab), select(1.0, share, draws && share < 1.0), temperature);
}

// Of a row, from its parts; once a dispatch.
fn highest_key(row: u32, t: u32) -> u32 {
  if (t < shape.parts) { atomicMax(&highest, work[row_at(row) + 4u * t]); }
  workgroupBarrier();
  return atomicLoad(&highest);
}

// Three histograms a row take turns: one is read, one is filled, one is cleared for the next turn.
fn bins_at(row: u32, turn: u32) -> u32 { return (row * 3u + turn % 3u) * 2u * BINS; }

fn search_at(row: u32, turn: u32) -> u32 { return row_at(row) + 5u * shape.parts + 4u + turn % 2u * SEARCH_WORDS; }

fn plus(a: vec2u, b: vec2u) -> vec2u {
  let low = a.x + b.x;
  return vec2u(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn less(a: vec2u, b: vec2u) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }

// The least amount that is at least this share of all, and not 0. share < 1.
fn share_of(total: vec2u, share: f32) -> vec2u {
  let bits = bitcast<u32>(share) & 0x7fffffffu; // -0 is 0
  let number = select(0u, (bits & 0x7fffffu) | 0x800000u, bits >= 0x800000u); // share = number / 2^shift
  var shift = 150u - (bits >> 23u);
  let low = product(total.x, number);
  let high = plus(product(total.y, number), vec2u(low.y, 0u));
  var whole = vec3u(low.x, high);
  var lost = 0u;
  for (; shift >= 32u; shift -= 32u) {
    lost |= whole.x;
    whole = vec3u(whole.yz, 0u);
  }
  if (shift > 0u) {
    lost |= whole.x << (32u - shift);
    let carried = whole.yz << vec2u(32u - shift);
    whole = vec3u((whole.xy >> vec2u(shift)) | carried, whole.z >> shift);
  }
  let least = plus(whole.xy, vec2u(select(0u, 1u, lost != 0u), 0u));
  return select(least, vec2u(1u, 0u), all(least == vec2u(0u, 0u)));
}

fn step_of(search: Search) -> u32 { return max(1u, (search.size + BINS - 1u) / BINS); }

// What a turn leaves of the search that it was in.
fn after_turn(row: u32, t: u32, turn: u32, share: f32) -> Search {
  if (t == 0u) {
    let at = search_at(row, turn);
    held = Search(work[at], work[at + 1u], work[at + 2u], Cut(work[at + 3u], work[at + 4u]),
                  vec2u(work[at + 5u], work[at + 6u]), vec2u(work[at + 7u], work[at + 8u]));
  }
  var search = workgroupUniformLoad(&held);
  var own: array<vec2u, RUN>;
  var sum = vec2u();
  for (var i = 0u; i < RUN; i++) {
    let bin = t * RUN + i;
    if (bin < BINS) {
      let at = bins_at(row, turn) + 2u * bin;
      own[i] = vec2u(atomicLoad(&bins[at]), atomicLoad(&bins[at + 1u]));
      sum = plus(sum, own[i]);
    }
  }
  sums[t] = sum;
  workgroupBarrier();
  if (t < 16u) {
    var group = vec2u();
    for (var i = 0u; i < 16u; i++) { group = plus(group, sums[t * 16u + i]); }
    sums[256u + t] = group;
  }
  workgroupBarrier();
  var total = vec2u();
  var amount = search.above;
  for (var i = 0u; i < 16u; i++) {
    total = plus(total, sums[256u + i]);
    if (i < t / 16u) { amount = plus(amount, sums[256u + i]); }
  }
  for (var i = t / 16u * 16u; i < t; i++) { amount = plus(amount, sums[i]); }
  if (turn == TURNS) { search.goal = share_of(total, share); }
  if (t == 0u && less(plus(search.above, total), search.goal)) { found = Found(NONE, vec2u()); }
  for (var i = 0u; i < RUN; i++) {
    let next = plus(amount, own[i]);
    if (less(amount, search.goal) && !less(next, search.goal)) { found = Found(t * RUN + i, amount); }
    amount = next;
  }
  let hit = workgroupUniformLoad(&found);
  if (hit.bin == NONE) {
    search.size = 0u;
    return search;
  }
  let step = step_of(search);
  let skipped = hit.bin * step;
  let by_id = turn % TURNS >= KEY_TURNS;
  search.first = select(search.first - skipped, search.first + skipped, by_id);
  search.size = min(step, search.size - skipped);
  search.above = hit.above;
  if (turn % TURNS == KEY_TURNS - 1u) {
    search.key = search.first;
    search.first = 0u;
    search.size = shape.vocab;
  }
  return search;
}

// The cut that a search came to with its last turn.
fn cut_after(row: u32, t: u32, turn: u32, share: f32) -> Cut {
  let search = after_turn(row, t, turn, share);
  if (search.size == 0u) { return search.cut; }
  return Cut(search.key, search.first + 1u);
}

//: narrow
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read> sequences: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>>;
@group(0) @binding(5) var<uniform> shape: Shape;
var<workgroup> counted: array<atomic<u32>, 2u * BINS>;

// A weight in parts of 1 / (ONE · 2^32): so many that those of the vocabulary do not overflow.
fn whole(weight: f32) -> vec2u {
  let high = floor(weight * ONE);
  return vec2u(u32((weight * ONE - high) * 4294967296.0), u32(high));
}

// A turn of the searches, of a row's top-k while it is below TURNS, then of its top-p. As many workgroups a row as are of
// use to the device.
@compute @workgroup_size(256)
fn narrow(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = group.y;
  let turn = shape.turn;
  let by_mass = turn >= TURNS;
  let asks = asked(row);
  if (select(asks.k == 0u, asks.share >= 1.0, by_mass)) { return; }
  let top = highest_key(row, t);
  var search: Search;
  if (turn % TURNS > 0u) {
    search = after_turn(row, t, turn - 1u, asks.share);
  } else {
    var keeps = Cut(0u, 0u);
    if (by_mass && asks.k > 0u) { keeps = cut_after(row, t, TURNS - 1u, asks.share); }
    let least = max(keeps.key, 1u);
    search = Search(top, select(0u, top - least + 1u, top >= least), 0u, keeps, vec2u(), vec2u(asks.k, 0u));
  }
  let by_id = turn % TURNS >= KEY_TURNS;
  let step = step_of(search);
  for (var id = group.x * 256u + t; id < shape.vocab; id += groups.x * 256u) {
    let key = key_of(logits[row * shape.vocab + id]);
    if (!stays(key, id, search.cut) || (by_id && key != search.key)) { continue; }
    let behind = select(search.first - key, id - search.first, by_id); // what lies before wraps around, beyond any size
    if (behind >= search.size) { continue; }
    var amount = vec2u(1u, 0u);
    if (by_mass) { amount = whole(weight_of(key, top, 1.0)); }
    let at = 2u * (behind / step);
    if (amount.x != 0u) {
      let before = atomicAdd(&counted[at], amount.x);
      amount.y += select(0u, 1u, before + amount.x < before);
    }
    if (amount.y != 0u) { atomicAdd(&counted[at + 1u], amount.y); }
  }
  workgroupBarrier();
  let filled = bins_at(row, turn);
  for (var at = 2u * t; at < 2u * BINS; at += 512u) {
    let low = atomicLoad(&counted[at]);
    var high = atomicLoad(&counted[at + 1u]);
    if (low != 0u) {
      let before = atomicAdd(&bins[filled + at], low);
      high += select(0u, 1u, before + low < before);
    }
    if (high != 0u) { atomicAdd(&bins[filled + at + 1u], high); }
  }
  let cleared = bins_at(row, turn + 1u);
  for (var at = group.x * 256u + t; at < 2u * BINS; at += groups.x * 256u) { atomicStore(&bins[cleared + at], 0u); }
  if (group.x == 0u && t == 0u) {
    let at = search_at(row, turn);
    work[at] = search.first;
    work[at + 1u] = search.size;
    work[at + 2u] = search.key;
    work[at + 3u] = search.cut.key;
    work[at + 4u] = search.cut.end;
    work[at + 5u] = search.above.x;
    work[at + 6u] = search.above.y;
    work[at + 7u] = search.goal.x;
    work[at + 8u] = search.goal.y;
  }
}

//: cut
@group(0) @binding(0) var<storage, read_write> work: array<u32>;
@group(0) @binding(1) var<storage, read> sequences: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> bins: array<atomic<u32>>;
@group(0) @binding(4) var<uniform> shape: Shape;

// What top-k, top-p and min-p leave of a row, once the searches are done. One workgroup a row.
@compute @workgroup_size(256)
fn cut(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) t: u32) {
  let row = group.x;
  let asks = asked(row);
  let top = highest_key(row, t);
  var keeps = Cut(0u, 0u);
  if (asks.share < 1.0) {
    keeps = cut_after(row, t, 2u * TURNS - 1u, asks.share);
  } else if (asks.k > 0u) {
    keeps = cut_after(row, t, TURNS - 1u, asks.share);
  }
  let min_p = bitcast<f32>(sequences[rows[row].x * S_WORDS + S_MIN_P]);
  let draws = asks.temperature > 0.0 && top != 0u;
  if (draws && min_p > 0.0) {
    let best = value_of(top);
    let least = key_of(bitcast<u32>(select(best, min(best, best + log(min_p)), min_p < 1.0)));
    let below = max(least, 1u) - 1u;
    if (below > keeps.key || (below == keeps.key && keeps.end > 0u)) { keeps = Cut(below, 0u); }
  }
  if (t == 0u) {
    let at = row_at(row) + 5u * shape.parts;
    work[at] = keeps.key;
    work[at + 1u] = keeps.end;
    work[at + 2u] = top;
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
fn philox(key: vec2u, position: u32) -> u32 {
  var k = key;
  var c = vec4u(position, 0u, 0u, 0u);
  for (var round = 0; round < 10; round++) {
    let p0 = product(0xD2511F53u, c.x);
    let p1 = product(0xCD9E8D57u, c.z);
    c = vec4u(p1.y ^ c.y ^ k.x, p1.x, p0.y ^ c.w ^ k.y, p0.x);
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
