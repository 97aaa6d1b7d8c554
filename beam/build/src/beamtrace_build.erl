%% Instruments the compiled modules of one application as a plan says, and only those that changed since the last time: what Mix and rebar3 have
%% in common. A manifest remembers of each beam what it was and what became of it; the plain beams are kept beside it, so that another plan
%% starts from them and the end of a plan brings them back byte for byte, and the instrumented ones, so that a build that comes to the same code
%% again (a forced one) needs no transformer.
-module(beamtrace_build).

-export([run/1, failures/1, clean/1]).

-include_lib("kernel/include/file.hrl").

-export_type([job/0, report/0, failure/0]).

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
    %% Modules that stay as they were, also those of earlier runs.
    failures := [failure()]
}.

-type digest() :: binary().
-record(entry, {
    %% Size, times and inode of the file as it was left.
    stat :: term(),
    %% What the compiler wrote; undefined when it was not to be had.
    plain :: digest() | undefined,
    %% What lies there now.
    output :: digest(),
    %% With the number of functions.
    result :: unchanged | {instrumented, non_neg_integer()} | {failed, failure()}
}).
-record(manifest, {key :: term(), entries = #{} :: #{file:filename() => #entry{}}}).
-record(work, {name :: file:filename(), path :: file:filename(), now :: binary(), plain :: binary()}).

-define(VERSION, 1).

%% Instruments what has changed. `noop`: nothing was written. An error is one of the whole job (the plan, Node); all is left as it was then.
-spec run(job()) -> {ok | noop, report()} | {error, beamtrace_port:problem()}.
run(#{plan := undefined} = Job) ->
    case read_manifest(Job) of
        #manifest{entries = Entries} when map_size(Entries) =:= 0 ->
            clean(Job),
            {noop, report([], [], false, [])};
        Old ->
            {Work, _, _} = changed(Job, none, Old),
            Restored = [Name || #work{name = Name, now = Now, plain = Plain} = W <- Work, Now =/= Plain, put_beam(W, Plain)],
            clean(Job),
            {done(Restored), report([], Restored, true, [])}
    end;
run(#{plan := Plan} = Job) ->
    Old = read_manifest(Job),
    case key(Job) of
        {ok, Key} ->
            {Work, Entries, Touched} = changed(Job, Key, Old),
            Same = Old#manifest.key =:= Key andalso not Touched andalso map_size(Entries) =:= map_size(Old#manifest.entries),
            case Work of
                [] when Same -> {noop, report([], [], false, failures_of(Entries))};
                [] -> saved(Job, #manifest{key = Key, entries = Entries}, [], []);
                _ -> instrument(Job, Key, Work, Entries)
            end;
        {error, Reason} ->
            {error, #{
                code => <<"BT_PLAN_INVALID">>,
                message => unicode:characters_to_binary(["plan ", Plan, ": ", file:format_error(Reason)])
            }}
    end.

%% What failed at the last run.
-spec failures(file:filename()) -> [failure()].
failures(Manifest) ->
    #manifest{entries = Entries} = read_manifest(#{manifest => Manifest}),
    failures_of(Entries).

%% Forgets everything. The beams are left as they are.
-spec clean(#{manifest := file:filename(), _ => _}) -> ok.
clean(#{manifest := Manifest} = Job) ->
    _ = file:delete(Manifest),
    _ = file:del_dir_r(kept_folder(Job)),
    ok.

report(Instrumented, Restored, Changed, Failures) ->
    #{instrumented => Instrumented, restored => Restored, changed => Changed, failures => Failures}.

done([]) -> noop;
done(_) -> ok.

failures_of(Entries) ->
    [Failure || {_, #entry{result = {failed, Failure}}} <- lists:sort(maps:to_list(Entries))].

%% What decides about the outcome besides the beam: the plan, the environment, and the transformer itself.
key(#{plan := Plan, environment := Environment, program := #{cli := Cli}}) ->
    case file:read_file(Plan) of
        {ok, Text} -> {ok, {digest(Text), Environment, stat(Cli)}};
        {error, Reason} -> {error, Reason}
    end.

%% Tells versions of a file apart; nobody gains from making two alike.
digest(Bytes) ->
    erlang:md5(Bytes).

stat(Path) ->
    case file:read_file_info(Path, [raw, {time, posix}]) of
        {ok, #file_info{size = Size, mtime = Modified, ctime = Changed, inode = Inode}} ->
            %% A file that was replaced has another inode, even within one second.
            {Size, Modified, Changed, Inode};
        {error, _} ->
            missing
    end.

%% Beams that have to be looked at, what is known of the others, and whether some of those were touched without a change.
changed(#{folder := Folder} = Job, Key, #manifest{key = OldKey, entries = Old}) ->
    Only = maps:get(only, Job, fun(_) -> true end),
    Names = [Name || Name <- beams(Folder), Only(Name)],
    lists:foldl(
        fun(Name, {Work, Entries, Touched}) ->
            Path = filename:join(Folder, Name),
            Stat = stat(Path),
            case Old of
                #{Name := #entry{stat = Stat} = Entry} when Key =:= OldKey ->
                    {Work, Entries#{Name => Entry}, Touched};
                #{Name := Entry} ->
                    look_at(Job, Name, Path, Entry, Key =:= OldKey, {Work, Entries, Touched});
                #{} ->
                    look_at(Job, Name, Path, undefined, false, {Work, Entries, Touched})
            end
        end,
        {[], #{}, false},
        Names
    ).

beams(Folder) ->
    case file:list_dir(Folder) of
        {ok, Names} -> [Name || Name <- lists:sort(Names), filename:extension(Name) =:= ".beam"];
        {error, _} -> []
    end.

look_at(Job, Name, Path, Entry, SameKey, {Work, Entries, Touched}) ->
    case file:read_file(Path) of
        {ok, Now} ->
            Digest = digest(Now),
            Again =
                case Entry of
                    %% The build tool has written it anew without a change.
                    #entry{plain = Digest, output = Output} when SameKey, Output =/= Digest -> kept(Job, Output);
                    _ -> undefined
                end,
            case Entry of
                _ when is_binary(Again) ->
                    true = put_beam(work(Name, Path, Now, Now), Again),
                    {Work, Entries#{Name => Entry#entry{stat = stat(Path)}}, true};
                #entry{output = Digest} when SameKey ->
                    {Work, Entries#{Name => Entry#entry{stat = stat(Path)}}, true};
                #entry{output = Digest, plain = Plain} ->
                    {[work(Name, Path, Now, original(Job, Plain, Digest, Now)) | Work], Entries, Touched};
                _ ->
                    {[work(Name, Path, Now, Now) | Work], Entries, Touched}
            end;
        {error, _} ->
            {Work, Entries, Touched}
    end.

work(Name, Path, Now, Plain) ->
    #work{name = Name, path = Path, now = Now, plain = Plain}.

%% What the compiler wrote; where it is lost, what lies there: it has the debug info to start from.
original(_, Digest, Digest, Now) ->
    Now;
original(_, undefined, _, Now) ->
    Now;
original(Job, Plain, _, Now) ->
    case kept(Job, Plain) of
        undefined -> Now;
        Bytes -> Bytes
    end.

%% Beams that are kept beside the manifest, by digest.
kept(Job, Digest) ->
    case file:read_file(kept_file(Job, Digest)) of
        {ok, Bytes} ->
            case digest(Bytes) of
                Digest -> Bytes;
                _ -> undefined
            end;
        {error, _} ->
            undefined
    end.

kept_folder(#{manifest := Manifest}) ->
    Manifest ++ ".kept".

kept_file(Job, Digest) ->
    filename:join(kept_folder(Job), binary_to_list(binary:encode_hex(Digest)) ++ ".beam").

instrument(#{plan := Plan, environment := Environment, program := Program} = Job, Key, Work, Entries) ->
    case beamtrace_port:ask(Program, {load_plan, unicode:characters_to_binary(Plan), Environment}) of
        {ok, #{plan := Id, empty := Empty}} ->
            ok = filelib:ensure_path(kept_folder(Job)),
            Results = parallel(fun(W) -> one(Job, Id, Empty, W) end, Work),
            Written = [{W, R} || {W, {written, R}} <- lists:zip(Work, Results)],
            All = lists:foldl(
                fun({#work{name = Name}, {_, Entry}}, Acc) -> Acc#{Name => Entry} end, Entries, lists:zip(Work, Results)
            ),
            Instrumented = [{Name, Count} || {#work{name = Name}, #entry{result = {instrumented, Count}}} <- Written],
            Restored = [Name || {#work{name = Name}, #entry{result = unchanged}} <- Written],
            saved(Job, #manifest{key = Key, entries = All}, Instrumented, Restored);
        {error, Problem} ->
            {error, Problem}
    end.

%% One module: `{written, Entry}` when the file changed, `{left, Entry}` when not.
one(_, _, true, W) ->
    outcome(W, W#work.plain, unchanged);
one(#{application := Application, program := Program} = Job, Plan, false, #work{path = Path, plain = Plain} = W) ->
    Module = #{bytes => Plain, path => unicode:characters_to_binary(Path), application => Application},
    case beamtrace_port:ask(Program, {instrument, Plan, Module}) of
        {ok, #{status := unchanged}} ->
            outcome(W, Plain, unchanged);
        {ok, #{status := restored, bytes := Bytes}} ->
            outcome(W#work{plain = Bytes}, Bytes, unchanged);
        {ok, #{status := instrumented, bytes := Bytes, functions := Count}} ->
            Bytes =:= Plain orelse begin keep_plain(Job, W), keep(Job, Bytes) end,
            outcome(W, Bytes, {instrumented, Count});
        {error, Problem} ->
            Failure = maps:merge(#{module => unicode:characters_to_binary(W#work.name), file => unicode:characters_to_binary(Path), line => 0}, Problem),
            outcome(W, Plain, {failed, Failure})
    end.

outcome(#work{path = Path, now = Now, plain = Plain} = W, Bytes, Result) ->
    Done =
        case Bytes =:= Now of
            true -> left;
            false -> true = put_beam(W, Bytes), written
        end,
    %% An instrumented beam of which no plain one is known: what is to be kept apart was never seen.
    Original =
        case Result of
            {instrumented, _} when Bytes =:= Plain -> undefined;
            _ -> digest(Plain)
        end,
    {Done, #entry{stat = stat(Path), plain = Original, output = digest(Bytes), result = Result}}.

%% The new file takes the old one's place in one step, with its mode and time of change: whoever compares times sees what the compiler did.
put_beam(#work{path = Path}, Bytes) ->
    {ok, #file_info{mode = Mode, mtime = Modified, atime = Read}} = file:read_file_info(Path, [raw, {time, posix}]),
    ok = replace(Path, Bytes),
    ok = file:write_file_info(Path, #file_info{mode = Mode, mtime = Modified, atime = Read}, [raw, {time, posix}]),
    unload(filename:basename(Path, ".beam")),
    true.

replace(Path, Bytes) ->
    Temporary = Path ++ ".beamtrace-" ++ os:getpid(),
    ok = file:write_file(Temporary, Bytes),
    case file:rename(Temporary, Path) of
        ok ->
            ok;
        {error, Reason} ->
            _ = file:delete(Temporary),
            error({rename, Path, Reason})
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

%% What lies there is kept under another name, and has only that one when the new file takes its place: a build has thousands of files, and each
%% operation on one wakes a thread of the VM.
keep_plain(Job, #work{path = Path, now = Plain, plain = Plain}) ->
    case file:make_link(Path, kept_file(Job, digest(Plain))) of
        ok -> ok;
        %% It is there, or the file system has no links.
        {error, _} -> keep(Job, Plain)
    end;
keep_plain(Job, #work{plain = Plain}) ->
    keep(Job, Plain).

keep(Job, Bytes) ->
    Digest = digest(Bytes),
    kept(Job, Digest) =:= undefined andalso replace(kept_file(Job, Digest), Bytes),
    ok.

saved(Job, #manifest{entries = Entries} = Manifest, Instrumented, Restored) ->
    Digests = lists:append([[D || D <- [P, O], D =/= undefined] || {_, #entry{plain = P, output = O}} <- maps:to_list(Entries), P =/= O]),
    Wanted = [filename:basename(kept_file(Job, D)) || D <- Digests],
    _ = [file:delete(filename:join(kept_folder(Job), Name)) || Name <- beams(kept_folder(Job)), not lists:member(Name, Wanted)],
    ok = filelib:ensure_dir(maps:get(manifest, Job)),
    ok = replace(maps:get(manifest, Job), term_to_binary({beamtrace_manifest, ?VERSION, Manifest#manifest.key, Entries}, [compressed])),
    {done(Instrumented ++ Restored), report(Instrumented, Restored, true, failures_of(Entries))}.

read_manifest(#{manifest := Path}) ->
    case file:read_file(Path) of
        {ok, Bytes} ->
            try binary_to_term(Bytes) of
                {beamtrace_manifest, ?VERSION, Key, Entries} -> #manifest{key = Key, entries = Entries};
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
