//! Where boxes stand, how lines run and where labels fit: `diagram` hands in sizes and shares,
//! and draws what comes back.
//!
//! A team with few lines is laid out in columns, left to right in order of first visit
//! (Sugiyama's method: barycentre order, median coordinates, a free lane through every column
//! that a long line crosses). With more lines than twice the boxes, columns would only hide
//! them: the boxes then stand on a ring with the lines inside, so that no line meets a box.

use super::diagram::NodeKind;

pub(super) type Point = [f64; 2];
pub(super) type Cubic = [Point; 4];

/// A box or a label, by its centre.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A line to lay out; `label` is the size of its label.
pub(super) struct Line {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) share: f64,
    pub(super) width: f64,
    pub(super) label: Option<[f64; 2]>,
}

/// The finished layout, from (0, 0) to `size`; boxes, routes and labels in the order given.
pub(super) struct Layout {
    pub(super) boxes: Vec<Rect>,
    pub(super) used: Vec<bool>,
    pub(super) routes: Vec<Vec<Cubic>>,
    pub(super) labels: Vec<Option<Rect>>,
    pub(super) size: [f64; 2],
}

const BOX_HEIGHT: f64 = 42.0;
const COLUMN_GAP: f64 = 84.0;
const ROW_GAP: f64 = 22.0;
const LANE_HEIGHT: f64 = 12.0;
const LOOP_HEIGHT: f64 = 30.0;

/// Lays out the boxes, given by kind and width, and the lines between them.
pub(super) fn layout(nodes: &[(NodeKind, f64)], lines: &[Line]) -> Layout {
    let order = order(nodes, lines);
    let mut used = vec![false; nodes.len()];
    order.iter().for_each(|&node| used[node] = true);
    let boxes = nodes.iter().map(|&(_, width)| Rect { x: 0.0, y: 0.0, width, height: BOX_HEIGHT });
    let mut boxes: Vec<Rect> = boxes.collect();
    let dense = lines.len() > 2 * order.len();
    let routes = if dense {
        ring(nodes, &order, lines, &mut boxes)
    } else {
        columns(nodes, &order, lines, &mut boxes)
    };
    park_unused(&used, &routes, &mut boxes);
    let labels = place_labels(&boxes, &routes, lines);
    moved_to_origin(boxes, used, routes, labels)
}

/// The used nodes in order of first visit along the heaviest lines, except that a node moves
/// before others where this leaves fewer tasks to lead back; the finish comes last.
fn order(nodes: &[(NodeKind, f64)], lines: &[Line]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes.len()).filter(|&n| nodes[n].0 == NodeKind::Start).collect();
    let starts = order.len();
    let mut turn: Vec<Option<usize>> = vec![None; nodes.len()];
    order.iter().enumerate().for_each(|(place, &node)| turn[node] = Some(place));
    loop {
        let frontier = lines.iter().filter(|l| turn[l.from].is_some() && turn[l.to].is_none());
        // Of equal shares the earliest source and then the first line, hence the reversals.
        let heaviest = frontier
            .rev()
            .max_by(|a, b| a.share.total_cmp(&b.share).then(turn[b.from].cmp(&turn[a.from])))
            .map(|line| line.to);
        // A line too light to show may have been the only way in.
        let stranded = || lines.iter().map(|l| l.from).find(|&n| turn[n].is_none());
        let Some(node) = heaviest.or_else(stranded) else { break };
        turn[node] = Some(order.len());
        order.push(node);
    }
    order.sort_by_key(|&node| nodes[node].0 == NodeKind::Finish);

    let share =
        |from, to| -> f64 { lines.iter().filter(|l| l.from == from && l.to == to).map(|l| l.share).sum() };
    for place in starts..order.len() {
        let node = order[place];
        let (mut gain, mut best) = (0.0, (1e-9, place));
        for earlier in (starts..place).rev() {
            gain += share(node, order[earlier]) - share(order[earlier], node);
            if gain > best.0 {
                best = (gain, earlier);
            }
        }
        order[best.1..=place].rotate_right(1);
    }
    order
}

/// The column of each used node: behind all that come before it and share a line with it, so
/// that no line has both ends in one column.
fn layers(count: usize, order: &[usize], lines: &[Line]) -> Vec<Option<usize>> {
    let mut layers = vec![None; count];
    for &node in order {
        let neighbours = lines.iter().filter_map(|l| match (l.from == node, l.to == node) {
            (true, false) => layers[l.to],
            (false, true) => layers[l.from],
            _ => None,
        });
        layers[node] = Some(neighbours.max().map_or(0, |layer: usize| layer + 1));
    }
    layers
}

/// The lines of the way from the start to the finish whose lightest line is the heaviest.
fn spine(nodes: &[(NodeKind, f64)], order: &[usize], lines: &[Line]) -> Vec<usize> {
    let mut widest: Vec<(f64, Option<usize>)> = vec![(0.0, None); nodes.len()];
    for (place, &node) in order.iter().enumerate() {
        if nodes[node].0 == NodeKind::Start {
            widest[node].0 = f64::INFINITY;
        }
        for (index, line) in
            lines.iter().enumerate().filter(|(_, l)| l.to == node && order[..place].contains(&l.from))
        {
            let width = widest[line.from].0.min(line.share);
            if width > widest[node].0 {
                widest[node] = (width, Some(index));
            }
        }
    }
    let finish = order.iter().copied().find(|&n| nodes[n].0 == NodeKind::Finish);
    std::iter::successors(finish.and_then(|n| widest[n].1), |&line| widest[lines[line].from].1).collect()
}

/// Something that takes room in a column: a node, or the lane of a line that passes by.
struct Item {
    layer: usize,
    y: f64,
    above: f64,
    below: f64,
    weight: f64,
    is_lane: bool,
    /// On the way from start to finish, which is drawn straight.
    is_spine: bool,
}

fn columns(
    nodes: &[(NodeKind, f64)],
    order: &[usize],
    lines: &[Line],
    boxes: &mut [Rect],
) -> Vec<Vec<Cubic>> {
    let layers = layers(nodes.len(), order, lines);
    let spine = spine(nodes, order, lines);
    let mut items: Vec<Item> = Vec::new();
    for (node, layer) in layers.iter().enumerate() {
        let loops = lines.iter().any(|l| l.from == node && l.to == node);
        let above = BOX_HEIGHT / 2.0 + if loops { LOOP_HEIGHT + 6.0 } else { 0.0 };
        let is_spine = spine.iter().any(|&l| lines[l].from == node || lines[l].to == node);
        let layer = layer.unwrap_or(0);
        items.push(Item {
            layer,
            y: 0.0,
            above,
            below: BOX_HEIGHT / 2.0,
            weight: 1.0,
            is_lane: false,
            is_spine,
        });
    }
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); layers.iter().flatten().max().map_or(0, |l| l + 1)];
    for &node in order {
        columns[items[node].layer].push(node);
    }

    // Way of each line: the items it visits. Lanes start above the boxes for lines that lead
    // back and below them for lines that lead forward.
    let mut ways: Vec<Vec<usize>> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_spine = spine.contains(&index);
        let (a, b) = (items[line.from].layer, items[line.to].layer);
        let lanes = items.len();
        for (layer, column) in columns.iter_mut().enumerate().take(a.max(b)).skip(a.min(b) + 1) {
            let half = LANE_HEIGHT / 2.0;
            let weight = 0.3 * line.share;
            items.push(Item { layer, y: 0.0, above: half, below: half, weight, is_lane: true, is_spine });
            column.insert(if a < b { column.len() } else { 0 }, items.len() - 1);
        }
        let mut lanes: Vec<usize> = (lanes..items.len()).collect();
        if a > b {
            lanes.reverse();
        }
        ways.push([vec![line.from], lanes, vec![line.to]].concat());
    }
    settle(&mut items, &mut columns, lines, &ways);

    let mut left = 0.0;
    let mut edges: Vec<[f64; 2]> = Vec::new();
    for column in &columns {
        let width = column.iter().filter_map(|&i| boxes.get(i)).map(|b| b.width).fold(40.0, f64::max);
        for &item in column.iter().filter(|&&i| i < nodes.len()) {
            let rect = &mut boxes[item];
            (rect.x, rect.y, rect.width) = (left + width / 2.0, items[item].y, width);
        }
        edges.push([left, left + width]);
        left += width + COLUMN_GAP;
    }
    let ports = ports(&items, &ways, lines);
    let route = |(index, way): (usize, &Vec<usize>)| {
        let (from, to) = (way[0], way[way.len() - 1]);
        if from == to {
            return vec![self_loop(&boxes[from], -1.0)];
        }
        let ahead = items[to].layer > items[from].layer;
        let is_pair = way.len() == 2 && lines.iter().any(|l| l.from == to && l.to == from);
        let mut stops: Vec<Point> = Vec::new();
        for (place, &item) in way.iter().enumerate() {
            let [near, far] =
                if ahead { edges[items[item].layer] } else { reversed(edges[items[item].layer]) };
            if items[item].is_lane {
                stops.extend([[near, items[item].y], [far, items[item].y]]);
                continue;
            }
            let side = if (place == 0) == ahead { 0.5 } else { -0.5 };
            let [out, into] = ports[index];
            let y = items[item].y + if place == 0 { out } else { into };
            stops.push([boxes[item].x + side * boxes[item].width, y]);
        }
        // Level at both ends, hence inside the gap between two columns all the way; of a pair,
        // each bows to its own left.
        let level = |pair: &[Point]| {
            let [dx, dy] = [pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]];
            let scale = if is_pair { 11.0 / length([dx, dy]) } else { 0.0 };
            let middle = (pair[0][0] + pair[1][0]) / 2.0 + dy * scale;
            [pair[0], [middle, pair[0][1] - dx * scale], [middle, pair[1][1] - dx * scale], pair[1]]
        };
        stops.windows(2).map(level).collect()
    };
    ways.iter().enumerate().map(route).collect()
}

fn reversed([a, b]: [f64; 2]) -> [f64; 2] {
    [b, a]
}

/// Orders every column by the barycentre of its neighbours, then moves items to their median.
fn settle(items: &mut [Item], columns: &mut [Vec<usize>], lines: &[Line], ways: &[Vec<usize>]) {
    let mut links: Vec<Vec<(usize, f64)>> = vec![Vec::new(); items.len()];
    for (way, line) in ways.iter().zip(lines) {
        for pair in way.windows(2).filter(|pair| items[pair[0]].layer != items[pair[1]].layer) {
            for (item, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                match links[item].iter_mut().find(|(known, _)| *known == other) {
                    // There and back is one neighbour, not two.
                    Some((_, share)) => *share = share.max(line.share),
                    None => links[item].push((other, line.share)),
                }
            }
        }
    }
    // Half of the agents above the straight way, half below.
    for column in columns.iter_mut() {
        let is_agent = |i: &&usize| !items[**i].is_lane && !items[**i].is_spine;
        let (agents, above) =
            (column.iter().filter(is_agent).count(), column.iter().position(|&i| !items[i].is_lane));
        let middle = above.unwrap_or(0) + agents.div_ceil(2);
        if let Some(place) = column.iter().position(|&i| items[i].is_spine) {
            let item = column.remove(place);
            column.insert(middle, item);
        }
        for (place, &item) in column.iter().enumerate() {
            items[item].y = (place as f64 - middle as f64) * BOX_HEIGHT;
        }
    }
    let rounds = 32;
    for round in 0..rounds {
        for turn in 0..columns.len() {
            let layer = if round % 2 == 0 { turn } else { columns.len() - 1 - turn };
            if round < rounds / 2 {
                // Rightwards the column on the left is settled, leftwards the one on the right.
                let mean = |i: usize| {
                    let settled = links[i].iter().filter(|l| (items[l.0].layer < layer) == (round % 2 == 0));
                    let (sum, total) =
                        settled.fold((0.0, 0.0), |sums, l| (sums.0 + items[l.0].y * l.1, sums.1 + l.1));
                    match total {
                        _ if items[i].is_spine => 0.0,
                        0.0 => items[i].y,
                        // Whole pixels, and no -0, so that equals keep their order.
                        _ => (sum / total).round() + 0.0,
                    }
                };
                columns[layer].sort_by(|&a, &b| mean(a).total_cmp(&mean(b)));
            }
            let column = &columns[layer];
            let wish = |&i: &usize| match median(&links[i], items) {
                _ if items[i].is_spine => (0.0, 1e6),
                wish => (wish.unwrap_or(items[i].y), items[i].weight),
            };
            let wishes: Vec<(f64, f64)> = column.iter().map(wish).collect();
            let room = |pair: &[usize]| {
                let gap = if items[pair[0]].is_lane && items[pair[1]].is_lane { 4.0 } else { ROW_GAP };
                items[pair[0]].below + items[pair[1]].above + gap
            };
            let rooms: Vec<f64> = column.windows(2).map(room).collect();
            for (&item, y) in column.iter().zip(spread(&wishes, &rooms)) {
                items[item].y = y;
            }
        }
    }
}

fn median(links: &[(usize, f64)], items: &[Item]) -> Option<f64> {
    let mut near: Vec<(f64, f64)> = links.iter().map(|&(other, share)| (items[other].y, share)).collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = near.iter().map(|(_, share)| share).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let low = near.iter().position(|(_, share)| {
        sum += share;
        sum >= half - 1e-9
    })?;
    let high = if sum <= half + 1e-9 { (low + 1).min(near.len() - 1) } else { low };
    Some((near[low].0 + near[high].0) / 2.0)
}

/// Places values in the given order as near to their wishes (value, weight) as the room
/// between neighbours allows: isotonic regression by pooling adjacent violators.
pub(super) fn spread(wishes: &[(f64, f64)], rooms: &[f64]) -> Vec<f64> {
    let mut offsets = vec![0.0; wishes.len()];
    for i in 1..wishes.len() {
        offsets[i] = offsets[i - 1] + rooms[i - 1];
    }
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (&(wish, weight), offset) in wishes.iter().zip(&offsets) {
        let mut pool = (wish - offset, weight.max(1e-6), 1);
        while let Some(last) = pools.pop_if(|last| last.0 > pool.0) {
            let weight = last.1 + pool.1;
            pool = ((last.0 * last.1 + pool.0 * pool.1) / weight, weight, last.2 + pool.2);
        }
        pools.push(pool);
    }
    let values = pools.iter().flat_map(|&(value, _, count)| std::iter::repeat_n(value, count));
    values.zip(&offsets).map(|(value, offset)| value + offset).collect()
}

/// How far above or below the middle of the box each line leaves and arrives.
fn ports(items: &[Item], ways: &[Vec<usize>], lines: &[Line]) -> Vec<[f64; 2]> {
    let mut ports = vec![[0.0; 2]; ways.len()];
    let limit = BOX_HEIGHT / 2.0 - 5.0;
    for node in 0..items.len() {
        for right in [false, true] {
            // Ends on this side: (y of what comes next, leads left, line, 0 leaves or 1 arrives).
            let mut ends: Vec<(f64, bool, usize, usize)> = Vec::new();
            for (line, way) in ways.iter().enumerate() {
                let last = way.len() - 1;
                for (end, own, next) in [(0, way[0], way[1]), (1, way[last], way[last - 1])] {
                    let same = items[next].layer == items[node].layer;
                    if own == node && !same && (items[next].layer > items[node].layer) == right {
                        ends.push((items[next].y, (end == 0) != right, line, end));
                    }
                }
            }
            ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
            // A level line keeps the middle; the others make room.
            let wish = |&(y, _, line, _): &(f64, bool, usize, usize)| {
                let is_level = (y - items[node].y).abs() < 1.0;
                (0.0, lines[line].share * if is_level { 1e3 } else { 1.0 })
            };
            let wishes: Vec<(f64, f64)> = ends.iter().map(wish).collect();
            let room = 2.0 * limit / wishes.len().max(1) as f64;
            let offsets = spread(&wishes, &vec![room.min(9.0); wishes.len()]);
            for (end, offset) in ends.iter().zip(offsets) {
                ports[end.2][end.3] = offset.clamp(-limit, limit);
            }
        }
    }
    ports
}

/// A loop above the box, or below it with `direction` 1.
fn self_loop(rect: &Rect, direction: f64) -> Cubic {
    let y = rect.y + direction * rect.height / 2.0;
    let tip = y + direction * LOOP_HEIGHT / 0.75;
    [[rect.x - 9.0, y], [rect.x - 24.0, tip], [rect.x + 24.0, tip], [rect.x + 9.0, y]]
}

fn ring(nodes: &[(NodeKind, f64)], order: &[usize], lines: &[Line], boxes: &mut [Rect]) -> Vec<Vec<Cubic>> {
    let of = |kind: NodeKind| order.iter().copied().filter(move |&n| nodes[n].0 == kind);
    // Clockwise from the left: start, half of the agents, finish, the other half.
    let agents: Vec<usize> = of(NodeKind::Agent).collect();
    let (upper, lower) = agents.split_at(agents.len().div_ceil(2));
    let mut slots: Vec<usize> = of(NodeKind::Start).collect();
    slots.extend(upper);
    slots.extend(of(NodeKind::Finish));
    slots.extend(lower.iter().rev());
    shorten(nodes, lines, &mut slots);

    let count = slots.len() as f64;
    let widest = slots.iter().map(|&n| boxes[n].width).fold(0.0, f64::max);
    let step = core::f64::consts::TAU / count;
    let ry = (60.0 + 18.0 * count).max((BOX_HEIGHT + 2.0 * ROW_GAP) / step);
    let rx = (1.5 * ry).max((widest + 30.0) / step);
    for (slot, &node) in slots.iter().enumerate() {
        let angle = core::f64::consts::PI - step * slot as f64;
        boxes[node].x = rx * libm::cos(angle);
        boxes[node].y = -ry * libm::sin(angle);
    }
    let route = |line: &Line| {
        let (from, to) = (&boxes[line.from], &boxes[line.to]);
        if line.from == line.to {
            return vec![self_loop(from, if from.y > 1.0 { 1.0 } else { -1.0 })];
        }
        // Drawn towards the centre, away from the boxes in between; a little to its left, away
        // from the line that leads back.
        let middle = mix([from.x, from.y], [to.x, to.y], 0.5);
        let inner = mix(middle, [0.0, 0.0], 0.3);
        let [dx, dy] = [to.x - from.x, to.y - from.y];
        let scale = 13.0 / length([dx, dy]).max(1.0);
        let bend = [inner[0] + dy * scale, inner[1] - dx * scale];
        let (start, end) = (border(from, bend), border(to, bend));
        vec![[start, mix(start, bend, 2.0 / 3.0), mix(end, bend, 2.0 / 3.0), end]]
    };
    lines.iter().map(route).collect()
}

/// Swaps agents on the ring while that brings heavy lines' ends nearer to each other.
fn shorten(nodes: &[(NodeKind, f64)], lines: &[Line], slots: &mut [usize]) {
    let cost = |slots: &[usize]| -> f64 {
        let mut slot_of = vec![0_usize; nodes.len()];
        slots.iter().enumerate().for_each(|(slot, &node)| slot_of[node] = slot);
        let away = |l: &Line| slot_of[l.from].abs_diff(slot_of[l.to]);
        lines.iter().map(|l| l.share * away(l).min(slots.len() - away(l)) as f64).sum()
    };
    let mut best = cost(slots);
    for _ in 0..8 {
        for a in 0..slots.len() {
            for b in a + 1..slots.len() {
                if nodes[slots[a]].0 != NodeKind::Agent || nodes[slots[b]].0 != NodeKind::Agent {
                    continue;
                }
                slots.swap(a, b);
                let swapped = cost(slots);
                if swapped < best - 1e-9 {
                    best = swapped;
                } else {
                    slots.swap(a, b);
                }
            }
        }
    }
}

/// Where the straight line from the centre of the box to `point` leaves the box.
fn border(rect: &Rect, point: Point) -> Point {
    let [dx, dy] = [point[0] - rect.x, point[1] - rect.y];
    let scale = (2.0 * dx.abs() / rect.width).max(2.0 * dy.abs() / rect.height).max(1e-9);
    [rect.x + dx / scale, rect.y + dy / scale]
}

/// Unused nodes stand in rows below the picture.
fn park_unused(used: &[bool], routes: &[Vec<Cubic>], boxes: &mut [Rect]) {
    let standing = || boxes.iter().zip(used).filter(|(_, used)| **used).map(|(b, _)| b);
    let left = standing().map(|b| b.x - b.width / 2.0).reduce(f64::min).unwrap_or(0.0);
    let right = standing().map(|b| b.x + b.width / 2.0).fold(left + 300.0, f64::max);
    let lowest = standing().map(|b| b.y + b.height / 2.0).reduce(f64::max).unwrap_or(-ROW_GAP);
    let lowest = routes.iter().flatten().flatten().map(|p| p[1]).fold(lowest, f64::max);
    let (mut x, mut y) = (left, lowest + ROW_GAP + BOX_HEIGHT / 2.0);
    for (rect, _) in boxes.iter_mut().zip(used).filter(|(_, used)| !**used) {
        if x > left && x + rect.width > right {
            (x, y) = (left, y + BOX_HEIGHT + ROW_GAP / 2.0);
        }
        (rect.x, rect.y) = (x + rect.width / 2.0, y);
        x += rect.width + ROW_GAP;
    }
}

/// Puts each label beside its line, the heaviest first, where it covers least.
fn place_labels(boxes: &[Rect], routes: &[Vec<Cubic>], lines: &[Line]) -> Vec<Option<Rect>> {
    let samples: Vec<Vec<Point>> = routes.iter().map(|route| sampled(route)).collect();
    let mut order: Vec<usize> = (0..lines.len()).filter(|&l| lines[l].label.is_some()).collect();
    order.sort_by(|&a, &b| lines[b].share.total_cmp(&lines[a].share));
    let mut labels: Vec<Option<Rect>> = vec![None; lines.len()];
    for line in order {
        let Some([width, height]) = lines[line].label else { continue };
        let cost = |rect: &Rect| {
            let covered = boxes.iter().chain(labels.iter().flatten()).filter(|b| b.overlaps(rect)).count();
            let crossed = |(other, points): (usize, &Vec<Point>)| {
                // Near another line is nearly as bad as on it: whose label is it?
                let (margin, price) =
                    if other == line { (1.0, 20.0) } else { (5.0, 1.0 + 10.0 * lines[other].share) };
                let hit = points.iter().any(|&p| rect.holds(p, lines[other].width / 2.0 + margin));
                if hit { price } else { 0.0 }
            };
            1e3 * covered as f64 + samples.iter().enumerate().map(crossed).sum::<f64>()
        };
        let mut best: Option<(f64, Rect)> = None;
        for along in [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82] {
            let points = &samples[line];
            let place = ((along * points.len() as f64) as usize).clamp(1, points.len() - 2);
            let ([x0, y0], [x, y], [x1, y1]) = (points[place - 1], points[place], points[place + 1]);
            let length = length([x1 - x0, y1 - y0]).max(1e-9);
            let [nx, ny] = [(y1 - y0) / length, (x0 - x1) / length];
            let away = nx.abs() * width / 2.0 + ny.abs() * height / 2.0 + lines[line].width / 2.0 + 2.0;
            for away in [away, -away] {
                let rect = Rect { x: x + nx * away, y: y + ny * away, width, height };
                let cost = cost(&rect) + 4.0 * (along - 0.5_f64).abs();
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, rect));
                }
            }
        }
        labels[line] = best.map(|(_, rect)| rect);
    }
    labels
}

fn moved_to_origin(
    mut boxes: Vec<Rect>,
    used: Vec<bool>,
    mut routes: Vec<Vec<Cubic>>,
    mut labels: Vec<Option<Rect>>,
) -> Layout {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    let corners = boxes.iter().chain(labels.iter().flatten()).flat_map(|r| {
        [[r.x - r.width / 2.0, r.y - r.height / 2.0], [r.x + r.width / 2.0, r.y + r.height / 2.0]]
    });
    let on_routes = routes.iter().flat_map(|route| sampled(route));
    for point in corners.chain(on_routes) {
        for axis in [0, 1] {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    if boxes.is_empty() {
        (low, high) = ([0.0; 2], [0.0; 2]);
    }
    for rect in boxes.iter_mut().chain(labels.iter_mut().flatten()) {
        (rect.x, rect.y) = (rect.x - low[0], rect.y - low[1]);
    }
    for point in routes.iter_mut().flatten().flatten() {
        *point = [point[0] - low[0], point[1] - low[1]];
    }
    Layout { boxes, used, routes, labels, size: [high[0] - low[0], high[1] - low[1]] }
}

impl Rect {
    fn overlaps(&self, other: &Rect) -> bool {
        2.0 * (self.x - other.x).abs() < self.width + other.width
            && 2.0 * (self.y - other.y).abs() < self.height + other.height
    }

    /// Whether the point is in the box or within `margin` of it.
    fn holds(&self, [x, y]: Point, margin: f64) -> bool {
        (x - self.x).abs() < self.width / 2.0 + margin && (y - self.y).abs() < self.height / 2.0 + margin
    }
}

fn mix(a: Point, b: Point, t: f64) -> Point {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t]
}

/// Not `hypot`, whose last digit differs between platforms.
pub(super) fn length([dx, dy]: Point) -> f64 {
    (dx * dx + dy * dy).sqrt()
}

/// Points along the route, some four pixels from each other (de Casteljau).
fn sampled(route: &[Cubic]) -> Vec<Point> {
    let points = |&[a, b, c, d]: &Cubic| {
        let steps = (length([d[0] - a[0], d[1] - a[1]]) / 4.0).ceil().max(8.0);
        (0..=steps as usize).map(move |step| {
            let t = step as f64 / steps;
            let (ab, bc, cd) = (mix(a, b, t), mix(b, c, t), mix(c, d, t));
            mix(mix(ab, bc, t), mix(bc, cd, t), t)
        })
    };
    route.iter().flat_map(points).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any team: a start, `agents` agents, a finish, and each line with the given probability.
    fn team(seed: u64, agents: usize, density: f64) -> (Vec<(NodeKind, f64)>, Vec<Line>) {
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1_u64 << 24) as f64
        };
        let mut nodes = vec![(NodeKind::Agent, 0.0); agents + 2];
        nodes.iter_mut().for_each(|node| node.1 = 56.0 + (150.0 * random()).round());
        (nodes[0].0, nodes[agents + 1].0) = (NodeKind::Start, NodeKind::Finish);
        let mut lines = Vec::new();
        for from in 0..=agents {
            for to in 1..=agents + 1 {
                if random() < density {
                    let share = random();
                    let label = (share > 0.8).then_some([30.0, 13.0]);
                    lines.push(Line { from, to, share, width: 2.0, label });
                }
            }
        }
        (nodes, lines)
    }

    #[test]
    fn no_line_meets_a_box_that_is_not_its_end_and_no_box_meets_another() {
        for seed in 0..120 {
            let (nodes, lines) =
                team(seed, 1 + seed as usize % 12, [0.1, 0.2, 0.4, 1.0][seed as usize / 12 % 4]);
            let layout = layout(&nodes, &lines);
            for (line, route) in lines.iter().zip(&layout.routes) {
                for point in sampled(route) {
                    assert!(point.iter().zip(layout.size).all(|(v, size)| (-0.1..=size + 0.1).contains(v)));
                    for (node, rect) in layout.boxes.iter().enumerate() {
                        let is_end = node == line.from || node == line.to;
                        assert!(
                            is_end || !rect.holds(point, 0.0),
                            "seed {seed}: {} -> {} meets {node}",
                            line.from,
                            line.to
                        );
                    }
                }
            }
            for (a, rect) in layout.boxes.iter().enumerate() {
                assert!(layout.boxes[..a].iter().all(|other| !rect.overlaps(other)), "seed {seed}: box {a}");
            }
        }
    }

    #[test]
    fn values_are_spread_no_further_than_needed() {
        assert_eq!(spread(&[(0.0, 1.0), (0.0, 1.0), (90.0, 1.0)], &[10.0, 10.0]), [-5.0, 5.0, 90.0]);
        assert!((spread(&[(0.0, 1e9), (-4.0, 1.0)], &[10.0])[1] - 10.0).abs() < 1e-6);
        assert!(spread(&[], &[]).is_empty());
    }
}
