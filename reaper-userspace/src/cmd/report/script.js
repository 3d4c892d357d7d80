'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const at = (id) => document.getElementById(id);
  const kinds = {
    master_found: ['M', 'became a master'], heir: ['H', 'became a master after another one'], master_lost: ['X', 'master lost'],
    orphaned: ['O', 'orphaned'], busy: ['B', 'busy'], idle: ['I', 'idle'], signal: ['S', 'signal sent'],
    would: ['W', 'would have been signalled'], reaped: ['R', 'gone after a signal'], left: ['L', 'left by itself'],
    spared: ['P', 'spared'], draining: ['D', 'draining: somebody else asked it to stop'],
    agent_started: ['▶', 'agent started'], agent_stopped: ['■', 'agent stopped'], config_loaded: ['C', 'configuration loaded'],
    config_rejected: ['!', 'configuration rejected'], snapshot: ['N', 'all processes dumped'], events_lost: ['?', 'events lost'],
    resynced: ['=', 'tree rebuilt'], breaker_open: ['#', 'breaker opened'], breaker_closed: ['○', 'breaker closed'], error: ['E', 'error'],
  };
  const kind = (name) => kinds[name] || ['·', name];

  // Everything that is shown is made of text, never of markup.
  const make = (tag, cls, text) => {
    const made = document.createElement(tag);
    if (cls) made.className = cls;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const two = (n) => String(n).padStart(2, '0');
  const clock = (ms, fine) => {
    const d = new Date(ms + data.zone);
    const text = two(d.getUTCHours()) + ':' + two(d.getUTCMinutes()) + ':' + two(d.getUTCSeconds());
    return fine ? text + '.' + String(d.getUTCMilliseconds()).padStart(3, '0') : text;
  };
  const day = (ms) => {
    const d = new Date(ms + data.zone);
    return d.getUTCFullYear() + '-' + two(d.getUTCMonth() + 1) + '-' + two(d.getUTCDate());
  };

  // --- What is seen of the time: everything, with some room at both ends ---
  const room = Math.max((data.to - data.from) * 0.02, 50);
  const whole = [data.from - room, data.to + room];
  let view = whole.slice();
  const place = (ms) => ((ms - view[0]) / (view[1] - view[0])) * 100;

  const chart = at('chart');
  const axis = make('div', 'axis');
  axis.append(make('div', 'name', 'Process'));
  const ticks = make('div', 'track');
  axis.append(ticks);
  chart.append(axis);

  const placed = []; // bars: [element, from, to]
  const marked = []; // [track, [[element, time], …] in order]
  const rows = [];   // {row, band, group, text, orphan}

  const describe = (who, mark) => who + ': ' + kind(mark.kind)[1] + ' at ' + clock(mark.at, true) + (mark.text ? ': ' + mark.text : '');
  const show = (who, lines, element) => {
    const text = at('text');
    text.replaceChildren(make('p', 'what', who));
    for (const [cls, line] of lines) text.append(make('p', cls, line));
    at('detail').hidden = false;
    for (const old of chart.querySelectorAll('[aria-current]')) old.removeAttribute('aria-current');
    if (element) element.setAttribute('aria-current', 'true');
  };
  const close = () => {
    at('detail').hidden = true;
    for (const old of chart.querySelectorAll('[aria-current]')) old.removeAttribute('aria-current');
  };

  const onLook = (element, act) => {
    for (const event of ['mouseenter', 'focus', 'click']) element.addEventListener(event, act);
  };

  const addMark = (track, who, mark) => {
    const button = make('button', 'mark ' + mark.kind, kind(mark.kind)[0]);
    button.type = 'button';
    // One stop of the tab key a row; arrows go on from there.
    button.tabIndex = track.querySelector('.mark') ? -1 : 0;
    button.setAttribute('aria-label', describe(who, mark));
    onLook(button, () => show(who, [
      ['', kind(mark.kind)[1] + ', ' + day(mark.at) + ' ' + clock(mark.at, true)],
      ['', mark.text],
      ...mark.details.map((line) => ['look', line]),
    ], button));
    if (!marked.length || marked[marked.length - 1][0] !== track) marked.push([track, []]);
    marked[marked.length - 1][1].push([button, mark.at]);
    track.append(button);
  };

  const addBar = (track, cls, from, to, who, lines) => {
    const bar = make('div', 'bar ' + cls);
    placed.push([bar, from, to]);
    bar.addEventListener('mouseenter', () => show(who, lines, null));
    bar.addEventListener('click', () => show(who, lines, null));
    track.append(bar);
    return bar;
  };

  const addRow = (name, argv) => {
    const row = make('div', 'row');
    const label = make('div', 'name');
    label.title = argv;
    label.append(...name);
    const track = make('div', 'track');
    row.append(label, track);
    chart.append(row);
    return [row, track];
  };

  if (data.agent.length) {
    const [, track] = addRow([make('b', '', 'the agent')], '');
    for (const mark of data.agent) addMark(track, 'the agent', mark);
  }
  let band = null;
  for (const process of data.rows) {
    if (!band || band.group !== process.group) {
      band = { group: process.group, element: make('div', 'band', process.group) };
      chart.append(band.element);
      at('group').append(new Option(process.group, process.group));
    }
    const who = process.comm + ' ' + process.pid;
    const [row, track] = addRow([make('b', '', String(process.pid)), ' ' + process.comm], process.argv);
    const end = process.end === null ? whole[1] : process.end;
    const lines = [
      ['', (process.master ? 'master' : 'worker') + ' of ' + process.group + ', started ' + day(process.start) + ' ' + clock(process.start, true)],
      ['', process.end === null ? 'there at the end' : 'ended ' + clock(process.end, true)],
      ['', process.fate], ['look', process.argv],
    ];
    const life = addBar(track, process.master ? 'master' : 'worker', process.start, process.orphaned === null ? end : process.orphaned, who, lines);
    if (!process.marks.length) {
      life.tabIndex = 0;
      life.setAttribute('role', 'img');
      life.setAttribute('aria-label', who + ': ' + lines.map((line) => line[1]).filter(Boolean).join(', '));
      life.addEventListener('focus', () => show(who, lines, null));
    }
    if (process.orphaned !== null) addBar(track, 'orphan', process.orphaned, end, who, lines);
    for (const mark of process.marks) addMark(track, who, mark);
    if (process.more) row.title = process.more + ' marks in the middle are not shown';
    rows.push({ row, band, group: process.group, orphan: process.orphaned !== null, text: (who + ' ' + process.argv).toLowerCase() });
  }

  // --- Layout ---
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5, 864e5, 1728e5, 6048e5, 2592e6];
  const layTicks = () => {
    const most = Math.max(2, Math.floor((ticks.clientWidth || 600) / 100));
    const step = steps.find((s) => (view[1] - view[0]) / s <= most) || steps[steps.length - 1];
    ticks.replaceChildren();
    const first = Math.ceil((view[0] + data.zone) / step) * step - data.zone;
    for (let ms = first; ms <= view[1]; ms += step) {
      const text = step >= 864e5 ? day(ms) : step < 1e3 ? clock(ms, true) : clock(ms, false);
      const tick = make('span', 'tick', text);
      tick.style.left = place(ms) + '%';
      ticks.append(tick);
    }
  };
  // Marks of nearly the same moment stand side by side, in order; the exact time is in each one's text.
  const layMarks = (marks) => {
    const wide = ticks.clientWidth || 600, size = at('legend').querySelector('.mark').offsetWidth || 20, gap = size - 3, seen = [];
    let last = -Infinity;
    for (const [element, ms] of marks) {
      const x = (place(ms) / 100) * wide;
      element.hidden = x < 0 || x > wide;
      if (element.hidden) continue;
      last = Math.max(x, last + gap);
      seen.push([element, last]);
    }
    let most = wide - size / 2;
    for (const [element, x] of seen.reverse()) {
      const left = Math.max(Math.min(x, most), size / 2);
      element.style.left = (left / wide) * 100 + '%';
      most = left - gap;
    }
  };
  const lay = () => {
    for (const [element, from, to] of placed) {
      const begin = Math.max(place(from), 0), end = Math.min(place(to), 100);
      element.style.left = begin + '%';
      element.style.width = Math.max(end - begin, 0) + '%';
      element.hidden = end <= 0 || begin >= 100;
    }
    for (const [, marks] of marked) layMarks(marks);
    layTicks();
  };
  const zoom = (factor, shift) => {
    const span = Math.min(Math.max((view[1] - view[0]) * factor, 5), whole[1] - whole[0]);
    const middle = (view[0] + view[1]) / 2 + shift * (view[1] - view[0]);
    const begin = Math.min(Math.max(middle - span / 2, whole[0]), whole[1] - span);
    view = [begin, begin + span];
    lay();
  };
  const filter = () => {
    const group = at('group').value, text = at('find').value.trim().toLowerCase(), orphans = at('orphans').checked;
    const bands = new Set();
    let shown = 0;
    for (const one of rows) {
      const wanted = (!group || one.group === group) && (!orphans || one.orphan) && one.text.includes(text);
      one.row.hidden = !wanted;
      one.row.style.display = wanted ? '' : 'none';
      if (wanted) { bands.add(one.band); shown += 1; }
    }
    for (const one of rows) one.band.element.hidden = !bands.has(one.band);
    at('shown').textContent = shown === rows.length ? '' : shown + ' of ' + rows.length + ' processes';
  };

  // --- Controls ---
  for (const name of ['master_found', 'heir', 'master_lost', 'orphaned', 'busy', 'idle', 'signal', 'would', 'reaped', 'left', 'spared', 'draining']) {
    const item = make('li');
    item.append(make('span', 'mark ' + name, kinds[name][0]), kinds[name][1]);
    at('legend').append(item);
  }
  for (const [colour, text] of [['master', 'master'], ['worker', 'worker'], ['orphan', 'orphan']]) {
    const item = make('li'), swatch = make('span', 'swatch');
    swatch.style.background = 'var(--' + colour + ')';
    item.append(swatch, text);
    at('legend').append(item);
  }
  at('controls').hidden = false;
  at('controls').addEventListener('submit', (event) => event.preventDefault());
  for (const [id, event] of [['group', 'change'], ['find', 'input'], ['orphans', 'change']]) at(id).addEventListener(event, filter);
  const moves = { in: [0.5, 0], out: [2, 0], left: [1, -0.25], right: [1, 0.25] };
  for (const [id, [factor, shift]] of Object.entries(moves)) at(id).addEventListener('click', () => zoom(factor, shift));
  at('all').addEventListener('click', () => { view = whole.slice(); lay(); });
  at('close').addEventListener('click', close);
  const keys = { '+': 'in', '-': 'out', ArrowLeft: 'left', ArrowRight: 'right', 0: 'all' };
  // From mark to mark within a row, and from row to row.
  const walk = (mark, key) => {
    const seen = (row) => [...row.querySelectorAll('.mark, .bar[tabindex]')].filter((one) => !one.hidden);
    const row = mark.closest('.row');
    if (key === 'ArrowLeft' || key === 'ArrowRight') {
      const all = seen(row);
      return all[all.indexOf(mark) + (key === 'ArrowLeft' ? -1 : 1)];
    }
    const all = [...chart.querySelectorAll('.row')].filter((one) => one.style.display !== 'none' && seen(one).length);
    const next = all[all.indexOf(row) + (key === 'ArrowUp' ? -1 : 1)];
    return next && seen(next)[0];
  };
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') return close();
    if (event.key.startsWith('Arrow') && chart.contains(event.target)) {
      const next = walk(event.target, event.key);
      if (next) {
        event.preventDefault();
        next.focus();
      }
      return;
    }
    const typing = event.target.matches && event.target.matches('input, select');
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    // Arrows scroll wide tables.
    if (event.target.closest && event.target.closest('.wide')) return;
    event.preventDefault();
    at(keys[event.key]).click();
  });
  window.addEventListener('resize', lay);
  filter();
  lay();
  document.documentElement.dataset.drawn = String(rows.length);
})();
