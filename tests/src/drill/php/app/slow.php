<?php
// A request to php-fpm: `JOB KIND MS` is its query string, joined with slashes.

require __DIR__.'/work.php';
[$id, $kind, $ms] = explode('/', $_SERVER['QUERY_STRING']);
$redis = function () {
    $redis = new Redis;
    $redis->connect('127.0.0.1', (int) getenv('DRILL_REDIS'));
    return $redis;
};
echo Work::run((int) $id, $kind, (int) $ms, $redis) ? 'whole' : 'cut short';
