%% Instruments the compiled modules of one application as a plan says, and only those that changed since the last time: what Mix and rebar3 have
%% in common. A manifest remembers of each beam what it was and what became of it; the plain beams are kept beside it, so that another plan
%% starts from them and the end of a plan brings them back byte for byte, and the instrumented ones, so that a build that comes to the same code
%% again (a forced one) needs no transformer. The manifest only saves work: without it, as after a build that was killed, what is kept says by itself
%% what an instrumented beam was made from.
-module(beamtrace_build).

-export([run/1, last/1, clean/1]).

-include_lib("kernel/include/file.hrl").

-export_type([job/0, report/0, failure/0, problem/0]).

-type job() :: #{
    %% Folder with the beams, and the application they are of.
    folder := file:filename(),
    application := binary(),
    %% File of the manifest; the plain beams are in a folder beside it.
    manifest := file:filename(),
    %% The plan; `undefined` when there is none: everything is plain then.
    plan := file:filename() | undefined,
    environment := binary(),
    program := beamtrace_port:program(),
    %% Only these files of the folder (`Elixir.Shop.Cart.beam`), all when absent.
    only => fun((file:filename()) -> boolean())
}.
-type failure() :: #{module := binary(), file := binary(), line := non_neg_integer(), code := binary(), message := binary()}.
-type report() :: #{
    %% Modules whose beams were written, and how many functions of them have events.
    instrumented := [{file:filename(), non_neg_integer()}],
    restored := [file:filename()],
    %% Whether any beam was not as the last run left it, whatever became of it.
    changed := boolean(),
    %% Modules that stay as they were, also those of earlier runs. What could not be written has code `BT_NOT_WRITTEN`, and is tried again next time.
    failures := [failure()],
    %% Modules that should be plain and stay instrumented, as their plain beams are lost. Only the compiler can write them anew.
    orphans := [file:filename()]
}.
%% Why nothing was done, and which modules have events nevertheless, from the last time.
-type problem() :: #{code := binary(), message := binary(), instrumented := [file:filename()], _ => _}.

-type digest() :: beamtrace_kept:digest().
-record(entry, {
    %% Size, times and inode of the file as it was left.
    stat :: term(),
    %% What the compiler wrote; undefined when it was not to be had.
    plain :: digest() | undefined,
    %% What lies there now.
    output :: digest() | undefined,
    %% With the number of functions.
    result = unchanged :: unchanged | {instrumented, non_neg_integer()} | {failed, failure()} | {unwritten, failure()} | orphan
}).
-record(manifest, {key :: term(), entries = #{} :: entries()}).
-type entries() :: #{file:filename() => #entry{}}.
%% A beam as it is, and where to start from: `lost` when that is instrumented itself.
-record(work, {name :: file:filename(), path :: file:filename(), now :: binary(), plain :: binary(), origin = compiler :: compiler | lost}).

-define(VERSION, 1).

%% Instruments what has changed. `noop`: nothing was written. An error is one of the whole job (the plan, Node); all is left as it was then.
-spec run(job()) -> {ok | noop, report()} | {error, problem()}.
run(#{folder := Folder} = Job) ->
    Old = read_manifest(Job),
    case {key(Job), beams(Folder)} of
        {{ok, Key}, {ok, All}} -> build(Job, Key, Old, only(Job, All));
        {{error, Problem}, _} -> failed(Job, Old, Problem);
        {_, {error, Reason}} -> failed(Job, Old, problem("~ts can't be read: ~ts", [Folder, file:format_error(Reason)]))
    end.

build(Job, Key, Old, Names) ->
    {Work, Entries, Touched} = changed(Job, Key, Old, Names),
    Same = Old#manifest.key =:= Key andalso not Touched andalso map_size(Entries) =:= map_size(Old#manifest.entries),
    case Work of
        [] when Same ->
            {noop, report([], [], false, Entries)};
        %% Nothing to remember.
        [] when Key =:= none, map_size(Entries) =:= 0 ->
            clean(Job),
            {noop, report([], [], Touched, Entries)};
        [] ->
            saved(Job, #manifest{key = Key, entries = Entries}, [], []);
        _ ->
            case start(Job) of
                {ok, Plan} -> instrument(Job, Plan, Key, Work, Entries);
                {error, Problem} -> failed(Job, Old, Problem)
            end
    end.

%% What the last run left to be told: all but failures and orphans is empty.
-spec last(file:filename()) -> report().
last(Manifest) ->
    #manifest{entries = Entries} = read_manifest(#{manifest => Manifest}),
    report([], [], false, Entries).

%% Forgets everything. The beams are left as they are.
-spec clean(#{manifest := file:filename(), _ => _}) -> ok.
clean(#{manifest := Manifest} = Job) ->
    _ = file:delete(Manifest),
    beamtrace_kept:drop(kept_folder(Job)).

report(Instrumented, Restored, Changed, Entries) ->
    All = lists:sort(maps:to_list(Entries)),
    #{
        instrumented => Instrumented,
        restored => Restored,
        changed => Changed,
        failures => [Failure || {_, #entry{result = {How, Failure}}} <- All, How =:= failed orelse How =:= unwritten],
        orphans => [Name || {Name, #entry{result = orphan}} <- All]
    }.

failed(Job, Old, Problem) ->
    {error, Problem#{instrumented => instrumented_now(Job, Old)}}.

%% Modules that have events. The files decide: whoever is told that nothing was done wants to know what is the case.
instrumented_now(#{folder := Folder} = Job, #manifest{entries = Entries}) ->
    Names = case beams(Folder) of {ok, All} -> only(Job, All); {error, _} -> [] end,
    [Name || Name <- Names, has_events(filename:join(Folder, Name), maps:get(Name, Entries, undefined))].

has_events(Path, Entry) ->
    Stat = stat(Path),
    case Entry of
        #entry{stat = Stat, result = unchanged} ->
            false;
        #entry{stat = Stat, result = {instrumented, _}} ->
            true;
        _ ->
            case file:read_file(Path) of
                {ok, Bytes} -> beamtrace_kept:is_instrumented(Bytes);
                {error, _} -> false
            end
    end.

problem(Format, Arguments) ->
    #{code => <<"BT_NOT_WRITTEN">>, message => unicode:characters_to_binary(io_lib:format(Format, Arguments))}.

%% What decides about the outcome besides the beam: the plan, the environment, and the transformer itself.
key(#{plan := undefined}) ->
    {ok, none};
key(#{plan := Plan, environment := Environment, program := #{cli := Cli}}) ->
    case file:read_file(Plan) of
        {ok, Text} -> {ok, {beamtrace_kept:digest(Text), Environment, stat(Cli)}};
        {error, Reason} -> {error, (problem("plan ~ts: ~ts", [Plan, file:format_error(Reason)]))#{code := <<"BT_PLAN_INVALID">>}}
    end.

stat(Path) ->
    case file:read_file_info(Path, [raw, {time, posix}]) of
        {ok, #file_info{size = Size, mtime = Modified, ctime = Changed, inode = Inode}} ->
            %% A file that was replaced has another inode, even within one second.
            {Size, Modified, Changed, Inode};
        {error, _} ->
            missing
    end.

beams(Folder) ->
    case file:list_dir(Folder) of
        {ok, Names} ->
            beamtrace_kept:sweep_temporary(Folder, Names),
            {ok, [Name || Name <- lists:sort(Names), filename:extension(Name) =:= ".beam"]};
        {error, enoent} -> {ok, []};
        {error, Reason} -> {error, Reason}
    end.

only(Job, Names) ->
    lists:filter(maps:get(only, Job, fun(_) -> true end), Names).

%% Beams that have to be looked at, what is known of the others, and whether some of those were touched without a change.
changed(#{folder := Folder} = Job, Key, #manifest{key = OldKey, entries = Old}, Names) ->
    Origins = beamtrace_kept:origins(kept_folder(Job)),
    {Work, Entries, Touched} = lists:foldl(
        fun(Name, {Work, Entries, Touched}) ->
            Path = filename:join(Folder, Name),
            Stat = stat(Path),
            case Old of
                %% What could not be written may be so now.
                #{Name := #entry{result = {unwritten, _}} = Entry} ->
                    look_at(Job, Name, Path, Entry, Origins, false, {Work, Entries, Touched});
                #{Name := #entry{stat = Stat} = Entry} when Key =:= OldKey ->
                    {Work, Entries#{Name => Entry}, Touched};
                #{Name := Entry} ->
                    look_at(Job, Name, Path, Entry, Origins, Key =:= OldKey, {Work, Entries, Touched});
                #{} ->
                    look_at(Job, Name, Path, undefined, Origins, false, {Work, Entries, Touched})
            end
        end,
        {[], #{}, false},
        Names
    ),
    {found(Job, Work), Entries, Touched}.

look_at(Job, Name, Path, Entry, Origins, SameKey, {Work, Entries, Touched}) ->
    case file:read_file(Path) of
        {ok, Now} ->
            Digest = beamtrace_kept:digest(Now),
            Again =
                case Entry of
                    %% The build tool has written it anew without a change.
                    #entry{plain = Digest, output = Output} when SameKey, Output =/= Digest ->
                        beamtrace_kept:instrumented(kept_folder(Job), Digest, Output);
                    _ ->
                        undefined
                end,
            case Entry of
                _ when is_binary(Again) ->
                    W = #work{name = Name, path = Path, now = Now, plain = Now},
                    {_, New} = outcome(Job, W, Again, Entry#entry.result),
                    {Work, Entries#{Name => New}, true};
                #entry{output = Digest} when SameKey ->
                    {Work, Entries#{Name => Entry#entry{stat = stat(Path)}}, true};
                _ ->
                    {[work(Job, Name, Path, Now, origin(Entry, Digest, Origins)) | Work], Entries, Touched}
            end;
        {error, Reason} ->
            %% What is kept for it stays.
            Failure = unwritten(Name, Path, "can't be read", Reason),
            Known = case Entry of undefined -> #entry{}; _ -> Entry end,
            {Work, Entries#{Name => Known#entry{stat = undefined, result = {unwritten, Failure}}}, Touched}
    end.

%% Digest of what the compiler wrote, as far as it is known.
origin(#entry{output = Digest, plain = Plain}, Digest, _) when Plain =/= undefined -> Plain;
origin(_, Digest, Origins) -> maps:get(Digest, Origins, undefined).

%% Where it is lost, it is what lies there: it has the debug info to start from.
work(Job, Name, Path, Now, Origin) ->
    Kept =
        case Origin =:= undefined orelse beamtrace_kept:digest(Now) =:= Origin of
            true -> undefined;
            false -> beamtrace_kept:plain(kept_folder(Job), Origin)
        end,
    W = #work{name = Name, path = Path, now = Now, plain = Now},
    case Kept of
        undefined ->
            case beamtrace_kept:is_instrumented(Now) of
                true -> W#work{origin = lost};
                false -> W
            end;
        Plain ->
            W#work{plain = Plain}
    end.

%% A plain beam whose name does not say what was made from it (they did not, once) is found by what it holds.
found(Job, Work) ->
    case lists:keymember(lost, #work.origin, Work) of
        false ->
            Work;
        true ->
            Folder = kept_folder(Job),
            Known = beamtrace_kept:by_debug_info(Folder),
            [found(Folder, Known, W) || W <- Work]
    end.

found(Folder, Known, #work{origin = lost, now = Now} = W) ->
    case beamtrace_kept:described(Now) of
        {ok, Description} when is_map_key(Description, Known) ->
            case beamtrace_kept:plain(Folder, maps:get(Description, Known)) of
                undefined -> W;
                Plain -> W#work{plain = Plain, origin = compiler}
            end;
        _ ->
            W
    end;
found(_, _, W) ->
    W.

kept_folder(#{manifest := Manifest}) ->
    beamtrace_kept:folder(Manifest).

%% The plan as the transformer knows it; `none` when it can't include anything.
start(Job) ->
    Folder = kept_folder(Job),
    case filelib:ensure_path(Folder) of
        ok -> load_plan(Job);
        {error, Reason} -> {error, problem("~ts can't be made: ~ts", [Folder, file:format_error(Reason)])}
    end.

load_plan(#{plan := undefined}) ->
    {ok, none};
load_plan(#{plan := Plan, environment := Environment, program := Program}) ->
    case beamtrace_port:ask(Program, {load_plan, unicode:characters_to_binary(Plan), Environment}) of
        {ok, #{empty := true}} -> {ok, none};
        {ok, #{plan := Id}} -> {ok, Id};
        {error, Problem} -> {error, Problem}
    end.

instrument(Job, Plan, Key, Work, Entries) ->
    Results = lists:zip(Work, parallel(fun(W) -> one(Job, Plan, W) end, Work)),
    All = lists:foldl(fun({#work{name = Name}, {_, Entry}}, Acc) -> Acc#{Name => Entry} end, Entries, Results),
    Instrumented = [{Name, Count} || {#work{name = Name}, {written, #entry{result = {instrumented, Count}}}} <- Results],
    Restored = [Name || {#work{name = Name}, {written, #entry{result = unchanged}}} <- Results],
    saved(Job, #manifest{key = Key, entries = All}, Instrumented, Restored).

%% One module: `{written, Entry}` when the file changed, `{left, Entry}` when not.
one(Job, none, #work{origin = lost, now = Now} = W) ->
    outcome(Job, W, Now, orphan);
one(Job, none, W) ->
    outcome(Job, W, W#work.plain, unchanged);
one(#{application := Application, program := Program} = Job, Plan, #work{path = Path, plain = Plain} = W) ->
    Module = #{bytes => Plain, path => unicode:characters_to_binary(Path), application => Application},
    case beamtrace_port:ask(Program, {instrument, Plan, Module}) of
        {ok, #{status := unchanged}} ->
            outcome(Job, W, Plain, unchanged);
        {ok, #{status := restored, bytes := Bytes}} ->
            outcome(Job, W#work{plain = Bytes, origin = compiler}, Bytes, unchanged);
        {ok, #{status := instrumented, bytes := Bytes, functions := Count}} ->
            outcome(Job, W, Bytes, {instrumented, Count});
        {error, Problem} ->
            Failure = maps:merge(#{module => unicode:characters_to_binary(W#work.name), file => unicode:characters_to_binary(Path), line => 0}, Problem),
            outcome(Job, W, Plain, {failed, Failure})
    end.

outcome(Job, #work{name = Name, path = Path, now = Now, plain = Plain} = W, Bytes, Result) ->
    %% An instrumented beam of which no plain one is known: what is to be kept apart was never seen.
    Original = case W#work.origin of lost -> undefined; compiler -> beamtrace_kept:digest(Plain) end,
    case put_beam(Job, W, Original, Bytes) of
        ok ->
            Done = case Bytes =:= Now of true -> left; false -> written end,
            {Done, #entry{stat = stat(Path), plain = Original, output = beamtrace_kept:digest(Bytes), result = Result}};
        {error, Reason} ->
            Failure = unwritten(Name, Path, "can't be written", Reason),
            {left, #entry{stat = undefined, plain = Original, output = beamtrace_kept:digest(Now), result = {unwritten, Failure}}}
    end.

unwritten(Name, Path, What, Reason) ->
    Message = io_lib:format("~ts ~ts: ~ts", [Path, What, file:format_error(Reason)]),
    #{
        module => unicode:characters_to_binary(filename:basename(Name, ".beam")),
        file => unicode:characters_to_binary(Path),
        line => 0,
        code => <<"BT_NOT_WRITTEN">>,
        message => unicode:characters_to_binary(Message)
    }.

%% Both beams are kept before one takes the other's place: whenever a build is killed, each instrumented beam has its plain one.
put_beam(Job, W, Plain, Bytes) ->
    Folder = kept_folder(Job),
    case keep(Folder, W, Plain, Bytes) of
        ok when Bytes =:= W#work.now -> ok;
        ok ->
            case beamtrace_kept:replace(Folder, W#work.path, Bytes) of
                ok -> unload(filename:basename(W#work.path, ".beam"));
                {error, Reason} -> {error, Reason}
            end;
        {error, Reason} ->
            {error, Reason}
    end.

keep(_, _, undefined, _) ->
    ok;
keep(_, #work{plain = Bytes}, _, Bytes) ->
    ok;
keep(Folder, #work{path = Path, now = Now, plain = Plain}, Digest, Bytes) ->
    Linked = case Now of Plain -> Path; _ -> undefined end,
    case beamtrace_kept:keep_plain(Folder, Linked, Plain) of
        ok -> beamtrace_kept:keep_instrumented(Folder, Digest, Bytes);
        {error, Reason} -> {error, Reason}
    end.

%% The build tool has just loaded what it compiled; what it runs next (tests, say) should be what lies on the disk.
unload(Name) ->
    try list_to_existing_atom(Name) of
        Module ->
            case code:is_loaded(Module) of
                {file, _} ->
                    _ = code:purge(Module),
                    _ = code:delete(Module),
                    ok;
                false ->
                    ok
            end
    catch
        error:badarg -> ok
    end.

%% What is kept no longer goes last: until then it is what a lost manifest is made up for by.
saved(Job, #manifest{entries = Entries} = Manifest, Instrumented, Restored) ->
    Folder = kept_folder(Job),
    Report = report(Instrumented, Restored, true, Entries),
    Written =
        case filelib:ensure_path(Folder) of
            ok -> beamtrace_kept:write(Folder, maps:get(manifest, Job), manifest_bytes(Manifest));
            {error, Cause} -> {error, Cause}
        end,
    case Written of
        ok ->
            Pairs = [{P, O} || #entry{plain = P, output = O} <- maps:values(Entries), P =/= O, P =/= undefined, O =/= undefined],
            %% Of a beam that can't be read nobody knows what belongs to it.
            _ = [beamtrace_kept:sweep(Folder, Pairs) || not lists:keymember(undefined, #entry.output, maps:values(Entries))],
            {done(Instrumented ++ Restored), Report};
        {error, Reason} ->
            Failure = unwritten(binary_to_list(maps:get(application, Job)), maps:get(manifest, Job), "can't be written", Reason),
            {done(Instrumented ++ Restored), Report#{failures := [Failure | maps:get(failures, Report)]}}
    end.

done([]) -> noop;
done(_) -> ok.

manifest_bytes(#manifest{key = Key, entries = Entries}) ->
    term_to_binary({beamtrace_manifest, ?VERSION, Key, Entries}, [compressed]).

read_manifest(#{manifest := Path}) ->
    case file:read_file(Path) of
        {ok, Bytes} ->
            try binary_to_term(Bytes) of
                {beamtrace_manifest, ?VERSION, Key, Entries} when is_map(Entries) -> #manifest{key = Key, entries = Entries};
                _ -> #manifest{}
            catch
                error:badarg -> #manifest{}
            end;
        {error, _} ->
            #manifest{}
    end.

%% Results in the order of the list; at most so many at a time that all schedulers have something to do.
parallel(Fun, List) ->
    Parent = self(),
    Ref = make_ref(),
    Limit = 2 * erlang:system_info(schedulers_online),
    Start = fun({I, Item}) -> spawn_link(fun() -> Parent ! {Ref, I, Fun(Item)} end) end,
    {First, Rest} = lists:split(min(Limit, length(List)), lists:zip(lists:seq(1, length(List)), List)),
    lists:foreach(Start, First),
    gather(Ref, Start, Rest, length(First), []).

gather(_, _, [], 0, Results) ->
    [Result || {_, Result} <- lists:keysort(1, Results)];
gather(Ref, Start, Rest, Running, Results) ->
    receive
        {Ref, I, Result} ->
            case Rest of
                [Next | More] ->
                    Start(Next),
                    gather(Ref, Start, More, Running, [{I, Result} | Results]);
                [] ->
                    gather(Ref, Start, [], Running - 1, [{I, Result} | Results])
            end
    end.
