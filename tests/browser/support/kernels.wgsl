//: store
struct Args { rows: i32, grid_x: u32 }
@group(0) @binding(0) var<storage, read> token_ids: array<i32>;
@group(0) @binding(1) var<storage, read> positions: array<i32>;
@group(0) @binding(2) var<storage, read> row_sequence: array<i32>;
@group(0) @binding(3) var<storage, read> block_tables: array<i32>;
@group(0) @binding(4) var<storage, read_write> kv: array<i32>;
@group(0) @binding(5) var<uniform> args: Args;

@compute @workgroup_size(1)
fn store(@builtin(workgroup_id) group: vec3u) {
  let row = i32(group.y);
  if (row >= args.rows) { return; }
  let position = positions[row];
  let page = block_tables[row_sequence[row] * 8 + position / 16];
  kv[page * 64 + position % 16] = token_ids[row];
}

//: accumulate
struct Args { logit_rows: i32, grid_x: u32 }
@group(0) @binding(0) var<storage, read> positions: array<i32>;
@group(0) @binding(1) var<storage, read> row_sequence: array<i32>;
@group(0) @binding(2) var<storage, read> block_tables: array<i32>;
@group(0) @binding(3) var<storage, read> kv: array<i32>;
@group(0) @binding(4) var<storage, read> logit_rows: array<i32>;
@group(0) @binding(5) var<storage, read> table: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
@group(0) @binding(7) var<uniform> args: Args;

@compute @workgroup_size(64)
fn accumulate(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) v: u32) {
  let i = i32(group.y);
  if (i >= args.logit_rows) { return; }
  let row = logit_rows[i];
  var sum = 0.0;
  for (var p = 0; p <= positions[row]; p++) {
    let page = block_tables[row_sequence[row] * 8 + p / 16];
    let token = kv[page * 64 + p % 16];
    sum += table[token * 64 + i32(v)] * f32((7 * p + token) % 5);
  }
  sums[u32(i) * 64u + v] = sum;
}

//: accumulate_pairs
struct Args { logit_rows: i32, grid_x: u32 }
@group(0) @binding(0) var<storage, read> positions: array<i32>;
@group(0) @binding(1) var<storage, read> row_sequence: array<i32>;
@group(0) @binding(2) var<storage, read> block_tables: array<i32>;
@group(0) @binding(3) var<storage, read> kv: array<i32>;
@group(0) @binding(4) var<storage, read> logit_rows: array<i32>;
@group(0) @binding(5) var<storage, read> table: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
@group(0) @binding(7) var<uniform> args: Args;

@compute @workgroup_size(64, 2)
fn accumulate_pairs(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let v = local.x;
  let i = i32(group.y * 2 + local.y);
  if (i >= args.logit_rows) { return; }
  let row = logit_rows[i];
  var sum = 0.0;
  for (var p = 0; p <= positions[row]; p++) {
    let page = block_tables[row_sequence[row] * 8 + p / 16];
    let token = kv[page * 64 + p % 16];
    sum += table[token * 64 + i32(v)] * f32((7 * p + token) % 5);
  }
  sums[u32(i) * 64u + v] = sum;
}

//: add_bias
struct Args { logit_rows: u32, vocab: u32, grid_x: u32 }
@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;
@group(0) @binding(3) var<uniform> args: Args;

@compute @workgroup_size(64)
fn add_bias(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) v: u32) {
  if (group.x > args.grid_x || group.y >= args.logit_rows || v >= args.vocab) { return; }
  logits[group.y * args.vocab + v] = sums[group.y * args.vocab + v] + bias[v];
}
